"""What was typed for a run, as a configuration.

The train command, the search and the question to the nodes all take the same options.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import tyro

from cbdm_scale.config import Config, check_model_options, find_option
from cbdm_scale.data.loader import DataConfig
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.preset_file import is_file, read_preset_file
from cbdm_scale.presets import any_row
from cbdm_scale.remote import refuse_password, split_scheme
from cbdm_scale.storage import Storage


def parse(argv: Sequence[str]) -> tuple[Config, bool]:
    """The configuration of a command line and whether it only asks for a dry run.

    The data set and the preset decide the defaults of everything else, so they are read first.
    """
    base = starting_point(argv)
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


def starting_point(argv: Sequence[str]) -> Config:
    """The row that the other options start from: of the tables, or a file's.

    Either on the network that --backbone names, so that ``model`` has that one's options.
    """
    row = find_option(argv, "preset", "cbdm")
    root = find_option(argv, "data.root", DataConfig().root)
    backbone = find_option(argv, "backbone", "")
    if not is_file(row):
        return any_row(find_option(argv, "dataset", "digits_lt"), row, root, backbone)
    kept = read_preset_file(row)
    dataset = find_option(argv, "dataset", kept.dataset)
    if canonical_name(dataset) != canonical_name(kept.dataset):
        raise ValueError(
            f"preset ({row}) is for {kept.dataset}, not for dataset {dataset}. Leave --dataset "
            "out, or write the other name into the file."
        )
    backbone = backbone or str(kept.options.get("backbone", ""))
    return kept.over(any_row(kept.dataset, kept.preset, root, backbone), row)


def resolve(config: Config) -> Config:
    """Absolute paths: a job's working directory vanishes, and workers have their own."""
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
