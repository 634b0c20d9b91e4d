"""What is searched: options of the train command by their dotted names, and their ranges.

To search another option, add a line to ``SPACE``, or name it with --space.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import SCHEDULED, Config, is_runtime
from cbdm_scale.data.exposure import parse_exposure

TAU = "loss.tau"


@dataclass(frozen=True)
class Range:
    """From low to high, evenly, or evenly in the logarithm."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """The value at a share 0..1 of the way."""
        if self.log:
            return math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)

    def nearest(self, value: float) -> float:
        """The value itself, or the end that it lies beyond."""
        return min(max(value, self.low), self.high)

    @property
    def ends(self) -> tuple[float, ...]:
        """Its bounds."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of a few values, in order."""

    values: tuple[float, ...]

    def at(self, share: float) -> float:
        """The value at a share 0..1 of the way through the values."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def nearest(self, value: float) -> float:
        """The one that is closest, the first of two."""
        return min(self.values, key=lambda v: abs(v - value))

    @property
    def ends(self) -> tuple[float, ...]:
        """All of them: any may be as far as it goes."""
        return self.values

    def __str__(self) -> str:
        return " or ".join(f"{value:g}" for value in self.values)


Dimension = Range | Choice
Space = Mapping[str, Dimension]

SPACE: dict[str, Dimension] = {
    TAU: Range(0.01, 10, log=True),  # Table 7: 0.01 to 1; 0, which is DDPM, is the control
    "loss.p_uncond": Range(0.05, 0.3),  # Table 8: 0.1, 0.2, 0.5
    "loss.label_power": Range(0, 1),  # Table 2: 1 is Y^train, 0.5 is Y^sqr, 0 is Y^bal
}
AROUND = {
    "loss.gamma": 4.0,
    "loss.omega_max": 2.0,
    "loss.tcfg_gamma": 4.0,
    "train.lr": 3.0,
    "train.ema_halflife": 4.0,
}
"""Searched when --space names them: from the row's value, divided by so much, to so many
times it, logarithmic."""
TERMS: dict[str, Dimension] = {
    "loss.delta_fm": Range(0.01, 0.2, log=True),
    "loss.t2h": Choice((0.0, 1.0)),
    "loss.two_mask": Range(0.2, 5, log=True),
    "loss.ccua_align": Range(0.05, 2, log=True),
    "loss.ccua_contrast": Range(0.05, 2, log=True),
    "loss.coral": Range(0.1, 2, log=True),
    "loss.dispersive": Range(0.05, 1, log=True),
}
"""Searched when --space names them: weights around those of their papers, in whatever row."""
SCHEDULES: dict[str, Dimension] = dict.fromkeys(SCHEDULED, Range(0, 1))
"""Searched when --space names them, with @SHARE or without."""
WORDS = {"train": 1.0, "sqrt": 0.5, "bal": 0.0}
"""Label distributions by name, for loss.label_power."""


def make_space(words: Sequence[str], base: Config) -> dict[str, Dimension]:
    """``SPACE`` with what --space says laid over it; ValueError names what does not fit."""
    space = dict(SPACE)
    for word in words:
        option, mark, text = word.partition("=")
        option = option.replace("-", "_")
        found = parse(option, text) if mark else usual(option, base)
        if isinstance(found, Choice) and len(found.values) == 1:
            space.pop(option, None)
        else:
            space[option] = found
    if TAU not in space:
        raise ValueError(f"space: {TAU} is what is searched for. Give it a range, or drop it.")
    check(space, base)
    return space


def fixed(words: Sequence[str]) -> dict[str, float]:
    """What --space sets to one value, so that it is not searched."""
    found = {}
    for word in words:
        option, mark, text = word.partition("=")
        option = option.replace("-", "_")
        dimension = parse(option, text) if mark else None
        if isinstance(dimension, Choice) and len(dimension.values) == 1:
            found[option] = dimension.values[0]
    return found


def usual(option: str, base: Config) -> Dimension:
    """The range that an option has without being given one."""
    usual = SPACE | TERMS | SCHEDULES
    if (name := option.partition("@")[0]) in usual:
        return usual[name]
    if option not in AROUND:
        raise ValueError(
            f"space: {option} has no usual range. Give it one, such as {option}=0.1:1, or "
            f"choose from {', '.join([*usual, *AROUND])}."
        )
    value, factor = base.flat()[option], AROUND[option]
    return Range(value / factor, value * factor, log=True)


def parse(option: str, text: str) -> Dimension:
    """0.1:1, log:0.1:1, train,sqrt,bal or 0.1,0.2 as a dimension."""
    kind, _, rest = text.partition(":")
    log = kind == "log"
    ends = (rest if log else text).split(":")
    words = WORDS if option == "loss.label_power" else {}
    try:
        if len(ends) == 2:
            low, high = map(float, ends)
            if not (low < high and math.isfinite(high - low) and (low > 0 or not log)):
                raise ValueError
            return Range(low, high, log)
        if log or len(ends) != 1:
            raise ValueError
        values = [words[v] if v in words else float(v) for v in text.split(",")]
        if not all(map(math.isfinite, values)):
            raise ValueError
        return Choice(tuple(sorted(set(values))))
    except ValueError:
        raise ValueError(
            f"space: {option}={text} is neither LOW:HIGH, log:LOW:HIGH (both above 0, the "
            "lower first), nor values with commas between them."
        ) from None


def check(space: Space, base: Config) -> None:
    """ValueError where an option is unknown, no number, not of the method, or out of range."""
    for option, dimension in space.items():
        for value in dimension.ends:
            try:
                with_options(base, as_options(base, {option: value}))
            except ValueError as error:
                raise ValueError(f"space: {error}") from None
        if is_runtime(option) or isinstance(base.flat()[option.partition("@")[0]], list | None):
            raise ValueError(
                f"space: {option} does not change what is learnt by a number, so that it can "
                "not be searched. Give it as an option of the runs."
            )
        if option == TAU and min(dimension.ends) <= 0:
            raise ValueError(f"space: {TAU} must be above 0: 0, DDPM, is the control anyway.")


def as_options(base: Config, params: Mapping[str, float]) -> dict[str, Any]:
    """Values of a trial as options of a run: of one that is on or off, 1 is on.

    ValueError for another number there.
    """
    known = base.flat()
    found: dict[str, Any] = dict(params)
    for option, value in params.items():
        if isinstance(known.get(option), bool):
            if value not in (0, 1):
                raise ValueError(f"{option} is on or off. Try {option}=0,1.")
            found[option] = bool(value)
    return found


def own_value(base: Config, option: str) -> float:
    """What a run that nothing was searched for has for an option, at its share of the run."""
    name, _, share = option.partition("@")
    if name not in SCHEDULED:
        return float(base.flat()[option])
    changes = parse_exposure(name, base.flat()[name], 1.0)
    return [value for value, at in changes if at <= float(share or 0)][-1]


def mlflow_key(option: str) -> str:
    """An option as a key of MLflow, which has no @."""
    return option.replace("@", "_from_")


def settings(space: Space, params: Mapping[str, float]) -> dict[str, Any]:
    """Values of options as words, in the order of the space."""
    return {option: f"{params[option]:.3g}" for option in space if option in params}
