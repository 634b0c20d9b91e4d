"""What was typed for a run, as a configuration.

The train command, the search and the question to the nodes all take the same options.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import tyro

from cbdm_scale.config.preset_file import starting_point
from cbdm_scale.config.presets import ORIGINS
from cbdm_scale.config.schema import Config, check_model_options
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.pretrained.finetune import Start, with_defaults
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import refuse_password, split_scheme


def parse(argv: Sequence[str], start: Start | None = None) -> tuple[Config, bool]:
    """The configuration of a command line and whether it only asks for a dry run.

    The data set, the preset and the network that training starts from decide the defaults of
    everything else, so they are read first.
    """
    base = with_defaults(starting_point(argv), start, argv)
    check_model_options(argv, base.backbone)

    def command(
        config: Annotated[Config, tyro.conf.arg(name="")] = base, dry_run: bool = False
    ) -> tuple[Config, bool]:
        """Train a class-balancing diffusion model.

        Args:
            config: the run
            dry_run: print the resolved configuration and what follows from it, and stop
        """
        return config, dry_run

    return tyro.cli(
        command,
        args=list(argv),
        prog="python -m cbdm_scale.train",
        config=(tyro.conf.AvoidSubcommands,),  # the backbone has been chosen
    )


def resolve(config: Config) -> Config:
    """Absolute paths: a job's working directory vanishes, and workers have their own.

    ValueError for a row that fine-tunes where nothing is named to start from.
    """
    before = ORIGINS.get((canonical_name(config.dataset), config.preset))
    if before and not config.init_from:
        raise ValueError(
            f"preset ({config.preset}) fine-tunes, and init_from is empty. Give --init-from "
            f"the run of --dataset {before} --preset ddpm, or another trained network."
        )
    root = config.data.root
    refuse_password("data.root", root)
    if not split_scheme(root)[0]:
        root = Storage(root).url
    cache = Storage(config.data.cache).url if config.data.cache else ""
    storage = Storage(config.cluster.storage).url
    return replace(
        config,
        data=replace(config.data, root=root, cache=cache),
        cluster=replace(config.cluster, storage=storage),
    )
