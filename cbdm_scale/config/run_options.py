"""What was typed for a run, as a configuration, and which options somebody chose.

train, preflight and search take the same options. The data set, the preset, a file, the
backbone and the process decide the defaults of everything else, wherever they are on the line.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from cbdm_scale.cli.command import Typed
from cbdm_scale.config.overrides import with_options, with_process
from cbdm_scale.config.preset_file import PresetFile, read_preset_file
from cbdm_scale.config.presets import LABEL_SETS, ORIGINS, find_preset
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.data.options import DataConfig
from cbdm_scale.models.options import BACKBONES, BackboneName, backbone_config
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import with_values
from cbdm_scale.storage.path_options import absolute_paths
from cbdm_scale.storage.wording import shorten


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a command takes that starts runs, besides the options of a run."""

    config: str = ""
    """File of options to start from, JSON or YAML: the config.json of another run, winner.json
    of a search, or your own. It decides what is learnt, and no path, server or machine."""

    dry_run: bool = False
    """Print the resolved configuration and what follows from it, and stop."""


_BACKBONES: tuple[BackboneName, ...] = tuple(BACKBONES)  # type: ignore[arg-type]
RUN_PARTS = (
    *(Config(backbone=name, model=backbone_config(name)) for name in _BACKBONES),
    RunOptions(),
)
"""Options of a run on any backbone, for ``Command.parts``."""

RUN_SHORT: dict[str, Sequence[str]] = {
    "what is learnt": ("dataset", "preset", "config", "init_from", "seed", "name"),
    "how": (
        *("loss.name", "loss.tau", "loss.label_power", "process", "backbone", "data.augment"),
        *("train.total_images", "train.batch_size", "train.lr"),
    ),
    "how it is judged": ("eval.guidance", "eval.num_images", "eval.extractor"),
    "where": ("data.root", "cluster.storage", "cluster.workers", "cluster.device", "track.uri"),
    "more": ("dry_run",),
}
"""Of these the ones that --help lists."""


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """Options of a run, and which of them somebody chose."""

    typed: Typed
    """What stood on the command line."""

    preset: Config
    """The preset that it starts from."""

    base: Config
    """The defaults that ``typed`` is laid over: the preset's, a file's, a trained network's."""

    chosen: frozenset[str] = field(default_factory=frozenset)
    """Options that were typed, or that the file or the preset says on purpose."""

    held: frozenset[str] = frozenset()
    """Options that the file says, and nobody typed."""

    @property
    def config(self) -> Config:
        """The configuration. ValueError names an option that does not fit."""
        own = {name: v for name, v in self.typed.items() if not hasattr(RunOptions, name)}
        return with_options(self.base, own)

    def value(self, option: str) -> Any:
        """The value of an option by its dotted name, before the whole is built."""
        return self.typed.get(option, self.base.flat()[option])

    def check_values(self) -> None:
        """ValueError for a value that fits no network: before one is looked for."""
        for part in ("data", "diffusion", "edm", "loss", "train", "eval", "cluster", "track"):
            start = f"{part}."
            own = {
                n.removeprefix(start): v for n, v in self.typed.items() if n.startswith(start)
            }
            with_values(getattr(self.base, part), own, start)

    @contextmanager
    def naming_the_file(self) -> Iterator[None]:
        """An error about options inside says which of them are the file's, and its name."""
        try:
            yield
        except ValueError as error:
            words = set(re.findall(r"\w+\.\w+|\w+(?= \()", str(error)))
            if not (named := sorted(self.held & words)):
                raise
            file = f"from config ({self.typed['config']})"
            raise ValueError(f"{error} Here {shorten(named)} comes {file}.") from error

    @property
    def notes(self) -> list[str]:
        """A line where the process brought another sampler than the preset's, unchosen."""
        config = self.config
        if config.process == self.preset.process or "sample.name" in self.chosen:
            return []
        return [
            f"sample.name {config.sample.name}, {config.sample.num_steps} steps: the process "
            f"is {config.process}, the preset {self.preset.preset} is of "
            f"{self.preset.process}; the "
            "option chooses another sampler"
        ]


def parse_run(typed: Typed) -> Parsed:
    """Find the preset, lay the file over it, and what follows from the process."""
    file = _read_file(typed)
    usual = Config()
    dataset = canonical_name(typed.get("dataset", file.dataset if file else usual.dataset))
    name = typed.get("preset", file.preset if file else usual.preset)
    held = file.options if file else {}
    backbone = str(held.get("backbone", typed.get("backbone", "")))
    preset = find_preset(dataset, name, typed.get("data.root", DataConfig().root), backbone)
    base = preset
    try:
        if file:
            base = with_options(preset, held)
    except ValueError as error:
        raise ValueError(f"config ({typed['config']}): {error}") from None
    says_labels = {"loss.label_power"} if (dataset, name) in LABEL_SETS else set()
    return Parsed(
        typed=typed,
        preset=preset,
        base=with_process(base, typed.get("process", base.process)),
        chosen=frozenset({*typed, *held, *says_labels}),
        held=frozenset(held.keys() - typed.keys()),
    )


def _read_file(typed: Typed) -> PresetFile | None:
    """What --config names; ValueError where the line says another data set or backbone."""
    path = typed.get("config", "")
    if not path:
        return None
    file = read_preset_file(path)
    own = {
        "dataset": file.dataset,
        "preset": file.preset,
        "backbone": file.options.get("backbone"),
    }
    for option, value in own.items():
        asked = canonical_name(typed.get(option, value) or "")
        if asked != canonical_name(value or asked):
            raise ValueError(
                f"config ({path}) is for {option} {value}, not for {asked}. Leave --{option} "
                "out, or write the other name into the file."
            )
    return file


def resolve(config: Config) -> Config:
    """Absolute paths: a job's working directory vanishes, and workers have their own.

    ValueError for a preset that fine-tunes where nothing is named to start from.
    """
    before = ORIGINS.get((config.dataset, config.preset))
    if before and not config.init_from:
        raise ValueError(
            f"preset ({config.preset}) fine-tunes, and init_from is empty. Give --init-from "
            f"the run of --dataset {before} --preset ddpm, or another trained network."
        )
    if config.loss.distils and not config.init_from:
        raise ValueError(
            "loss.tcfg_target (teacher) learns from a trained network, and init_from is empty. "
            "Give --init-from its run, or try --loss.tcfg-target noise."
        )
    if config.init_sha256 and not config.init_from:
        raise ValueError(
            f"init_sha256 ({config.init_sha256}) is that of a trained network to start from. "
            "Give its place with --init-from."
        )
    config = absolute_paths(config)
    storage = Storage(config.cluster.storage).url
    return replace(config, cluster=replace(config.cluster, storage=storage))
