"""Other values of some options, by dotted name: of a preset file, of a search's trial.

A process brings its usual sampler, as there is none that both can use.
"""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

from cbdm_scale.config.kinds import same_kind
from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.diffusion.options import ProcessName
from cbdm_scale.sampling.options import usual_sampler


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """The configuration with other values of some options, by dotted name, as JSON has them.

    Where they name a process and no sampler, it is the process's usual one. ValueError names
    an option that is not known, or whose value is of another kind.
    """
    if "process" in options and "sample.name" not in options:
        config = with_process(config, options["process"])
    known, tree = config.flat(), asdict(config)
    for option, value in options.items():
        if option not in known:
            near = difflib.get_close_matches(option, known, 1)
            hint = f" Did you mean {near[0]}?" if near else " See --help."
            raise ValueError(f"{option} is no option of a run.{hint}")
        if not same_kind(known[option], value):
            kind = type(known[option]).__name__
            raise ValueError(
                f"{option} takes a value like {known[option]!r} ({kind}), got {value!r}."
            )
        *path, last = option.split(".")
        place = tree
        for part in path:
            place = place[part]
        is_float = isinstance(known[option], float)
        place[last] = float(value) if is_float else value
    return from_dict(tree)


def with_process(config: Config, process: str) -> Config:
    """The configuration under a process, with its usual sampler where that is another one."""
    if process == config.process:
        return config
    name = cast(ProcessName, process)  # Config checks it
    return replace(config, process=name, sample=usual_sampler(name))
