"""A row of one's own: a JSON file of options over a row of the tables, as a search writes it.

    {"dataset": "digits_lt", "preset": "cbdm", "options": {"loss.tau": 0.3}, "about": "..."}

Nothing in it runs, and no path, server or machine can be named in it: a file from a stranger
decides what is learnt and how it is judged, and nothing else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbdm_scale.config.overrides import with_options, with_process
from cbdm_scale.config.presets import LABEL_SETS, any_row
from cbdm_scale.config.schema import Config, find_option, is_runtime
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.data.options import DataConfig
from cbdm_scale.storage.json import parse_json

ENDING = ".json"
ALSO = ("train.total_images", "eval.omegas", "eval.num_images", "eval.guidance_mode", "sample.")
"""Options that a file may hold besides those that change what is learnt."""
FIELDS = {"dataset": str, "preset": str, "options": dict, "about": str}


@dataclass(frozen=True, kw_only=True)
class PresetFile:
    dataset: str
    preset: str
    """The row that ``options`` are laid over."""

    options: dict[str, Any] = field(default_factory=dict)
    """Dotted name -> value."""

    about: str = ""
    """Where it comes from, in words."""

    def over(self, row: Config, path: str) -> Config:
        """The row with the file's options; ValueError names the file and the option."""
        try:
            return with_options(row, self.options)
        except ValueError as error:
            raise ValueError(f"preset ({path}): {error}") from None


def is_file(row: str) -> bool:
    """Whether --preset names a file and not a row."""
    return row.endswith(ENDING)


def read_preset_file(path: str) -> PresetFile:
    """ValueError says what is wrong with the file."""
    try:
        content = parse_json(Path(path).expanduser().read_bytes(), "it")
    except OSError as error:
        raise ValueError(f"preset ({path}) cannot be read: {error}.") from None
    except ValueError as error:
        raise ValueError(f"preset ({path}) is no JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"preset ({path}) must hold one object with {', '.join(FIELDS)}.")
    if unknown := sorted(content.keys() - FIELDS.keys()):
        raise ValueError(
            f"preset ({path}) holds {', '.join(unknown)}; known are {', '.join(FIELDS)}."
        )
    for name, kind in FIELDS.items():
        if name in content and not isinstance(content[name], kind):
            raise ValueError(f"preset ({path}): {name} must be a {kind.__name__} of JSON.")
    if lacking := sorted({"dataset", "preset"} - content.keys()):
        raise ValueError(f"preset ({path}) lacks {' and '.join(lacking)}.")
    found = PresetFile(**content)
    for option in found.options:
        if is_runtime(option) and not option.startswith(ALSO):
            raise ValueError(
                f"preset ({path}): {option} is of the machine, not of the method. Take it out, "
                f"and give it on the command line."
            )
        if option == "dataset":
            raise ValueError(f"preset ({path}): dataset belongs beside options, not into them.")
    return found


def preset_text(made: PresetFile) -> str:
    """What ``read_preset_file`` reads."""
    content = {
        "dataset": canonical_name(made.dataset),
        "preset": made.preset,
        "options": made.options,
        "about": made.about,
    }
    return json.dumps(content, indent=2) + "\n"


def named_row(argv: Sequence[str]) -> tuple[str, str]:
    """Data set and row of the tables that a command line, or its file, starts from."""
    dataset, row = (
        find_option(argv, "dataset", "digits_lt"),
        find_option(argv, "preset", "cbdm"),
    )
    if is_file(row):
        kept = read_preset_file(row)
        dataset, row = kept.dataset, kept.preset
    return canonical_name(dataset), row


def is_chosen(argv: Sequence[str], option: str) -> bool:
    """Whether a command line, or the row or file that it names, gives an option a value."""
    row = find_option(argv, "preset", "")
    return (
        bool(find_option(argv, option.replace("_", "-"), ""))
        or (is_file(row) and option in read_preset_file(row).options)
        or (option == "loss.label_power" and named_row(argv) in LABEL_SETS)
    )


def starting_point(argv: Sequence[str]) -> Config:
    """The row's values, and the usual sampler of --process where that is another one's."""
    base = row_of(argv)
    return with_process(base, find_option(argv, "process", base.process))


def sampler_note(argv: Sequence[str], config: Config) -> list[str]:
    """A line where the process brought another sampler than the row's, and nobody chose it."""
    dataset, row = named_row(argv)
    root = find_option(argv, "data.root", DataConfig().root)
    before = any_row(dataset, row, root, "").process
    if config.process == before or is_chosen(argv, "sample.name"):
        return []
    return [
        f"sample.name {config.sample.name}, {config.sample.num_steps} steps: the process is "
        f"{config.process}, the row {row} is of {before}; the option chooses another sampler"
    ]


def row_of(argv: Sequence[str]) -> Config:
    """The row that the other options start from: of the tables, or a file's.

    Either on the network that --backbone names, so that ``model`` has that one's options.
    """
    row, backbone = find_option(argv, "preset", "cbdm"), find_option(argv, "backbone", "")
    root = find_option(argv, "data.root", DataConfig().root)
    if not is_file(row):
        return any_row(find_option(argv, "dataset", "digits_lt"), row, root, backbone)
    kept = read_preset_file(row)
    dataset = find_option(argv, "dataset", kept.dataset)
    if canonical_name(dataset) != canonical_name(kept.dataset):
        raise ValueError(
            f"preset ({row}) is for {kept.dataset}, not for dataset {dataset}. Leave --dataset "
            "out, or write the other name into the file."
        )
    own = str(kept.options.get("backbone", backbone))
    if backbone not in ("", own):
        raise ValueError(
            f"preset ({row}) is for backbone {own}, not for {backbone}. Leave --backbone out."
        )
    return kept.over(any_row(kept.dataset, kept.preset, root, own), row)
