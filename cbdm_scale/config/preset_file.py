"""A preset of one's own, which --config names: options over another preset, in JSON or YAML.

    {"dataset": "digits_lt", "preset": "cbdm", "options": {"loss.tau": 0.3}, "about": "..."}

    dataset: digits_lt
    preset: cbdm
    options:
      loss: {tau: 0.3}

A search writes one (winner.json). The config.json of a run is one too: of that, the options are
taken that such a file may hold. Nothing in it runs, and no path, server or machine can be named
in it: a file from a stranger decides what is learnt and how it is judged, and nothing else.
"""

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cbdm_scale.config.schema import from_dict, is_runtime
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.storage.json import flatten, parse_json, structure

ALSO = ("train.total_images", "eval.guidance", "eval.num_images", "sample.")
"""Options that a file may hold besides those that change what is learnt."""


@dataclass(frozen=True, kw_only=True)
class PresetFile:
    dataset: str
    preset: str
    """The preset that ``options`` are laid over."""

    options: dict[str, Any] = field(default_factory=dict)
    """Dotted name -> value."""

    about: str = ""
    """Where it comes from, in words."""


def may_hold(option: str) -> bool:
    """Whether a file may give an option a value."""
    return not is_runtime(option) or option.startswith(ALSO)


def read_preset_file(path: str) -> PresetFile:
    """A preset file, or a run's config.json. ValueError says what is wrong with it."""
    try:
        file = Path(path).expanduser()
        parse = parse_yaml if file.suffix in (".yaml", ".yml") else parse_json
        content = parse(file.read_bytes(), "it")
        if isinstance(content, dict) and "cluster" in content:
            return _of_run(content)
        found: PresetFile = structure(PresetFile, content, "")
        found = replace(found, options=flatten(found.options))
    except OSError as error:
        raise ValueError(f"config ({path}) cannot be read: {error}.") from None
    except ValueError as error:
        raise ValueError(
            f"config ({path}) is neither a run's config.json nor a preset file, which holds "
            f"dataset, preset, options and about: {error}"
        ) from None
    for option in found.options:
        if not may_hold(option) and option != "preset":
            raise ValueError(
                f"config ({path}): {option} is of the machine, not of the method. Take it out, "
                f"and give it on the command line."
            )
        if option in ("dataset", "preset"):
            raise ValueError(
                f"config ({path}): {option} belongs beside options, not into them."
            )
    return found


def parse_yaml(data: bytes, what: str) -> Any:
    """A YAML value of plain kinds; ValueError names ``what`` if it is none.

    Aliases are refused: a few lines of them stand for more values than any memory holds. 1e-3
    is a number, as in JSON and YAML 1.2; PyYAML follows 1.1, where it is text.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias (*name); write the value out")
            return super().compose_node(parent, index)

    number = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        return yaml.load(data, Loader)  # noqa: S506 (a SafeLoader: it makes plain values)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{what} is damaged: it is no YAML ({reason}).") from error


def _of_run(content: dict[str, Any]) -> PresetFile:
    config = from_dict(content)
    options = {
        option: value
        for option, value in config.flat().items()
        if may_hold(option) and option != "dataset"
    }
    return PresetFile(dataset=config.dataset, preset=config.preset, options=options)


def preset_text(made: PresetFile) -> str:
    """What ``read_preset_file`` reads."""
    content = asdict(made) | {"dataset": canonical_name(made.dataset)}
    return json.dumps(content, indent=2) + "\n"
