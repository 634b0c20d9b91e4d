"""Other values of some options of a run, by dotted name: typed, of a file, of a trial.

A process brings its usual sampler, as there is none that both can use.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, cast

from cbdm_scale.config.schema import SCHEDULED, Config
from cbdm_scale.diffusion.options import ProcessName
from cbdm_scale.models.options import BACKBONES
from cbdm_scale.sampling.options import usual_sampler
from cbdm_scale.storage.json import with_values


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """The configuration with other values of some options, by dotted name, as JSON has them.

    Where they name a process and no sampler, it is the process's usual one. Where one is a
    schedule, OPTION@SHARE adds a change to it: a number, which a search can choose. ValueError
    names an option that is not known, or whose value is of another kind.
    """
    if "process" in options and "sample.name" not in options:
        config = with_process(config, options["process"])
    known = config.flat()
    options = _with_changes(known, options)
    for option in options:
        if option not in known:
            check_model_option(option, config.backbone)
            near = difflib.get_close_matches(option, known, 1)
            hint = f" Did you mean {near[0]}?" if near else " See --help-all."
            raise ValueError(f"{option[:80]} is no option of a run.{hint}")
    return with_values(config, options)


def _with_changes(known: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of which data.resample_power@0.6 has gone into data.resample_power."""
    found = {name: value for name, value in options.items() if not is_change(name)}
    for name in sorted(filter(is_change, options), key=lambda n: float(n.partition("@")[2])):
        option, _, share = name.partition("@")
        found[option] = f"{found.get(option, known[option])},{options[name]}@{share}"
    return found


def is_change(option: str) -> bool:
    """Whether it is OPTION@SHARE: a value from a share of the run on."""
    name, _, share = option.partition("@")
    return name in SCHEDULED and re.fullmatch(r"0?\.\d+", share) is not None


def with_process(config: Config, process: str) -> Config:
    """The configuration under a process, with its usual sampler where that is another one."""
    if process == config.process:
        return config
    name = cast(ProcessName, process)  # Config checks it
    return replace(config, process=name, sample=usual_sampler(name))


def check_model_option(option: str, backbone: str) -> None:
    """ValueError if an option of ``model`` is another backbone's."""
    part, _, name = option.partition(".")
    names = {b: [field.name for field in fields(make())] for b, make in BACKBONES.items()}
    others = [b for b in BACKBONES if name in names[b]]
    if part == "model" and others and backbone not in others:
        raise ValueError(
            f"{option} is no option of backbone {backbone}, which has "
            f"{', '.join(names[backbone])}. Leave it out, or try --backbone {others[0]}."
        )
