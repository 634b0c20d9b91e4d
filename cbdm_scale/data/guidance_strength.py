"""Strengths of guidance, omega: one number for all classes, or one that knows the class.

    0.8                          of every class; 0 is none, the paper uses 0.8 to 1.6
    many=0.5,medium=0.5,few=1    by group of the data set (groups.py), each that it has
    count=1:-0.3                 max(0, 1 - 0.3 log10(n)) of a class with n training images:
                                 the first number for one image, the second for every tenfold

A strength is a plain value, so that files hold it as it is: a number, or a text in its one
spelling (``parse_strength``). Nothing here imports torch. K = number of classes.
"""

import math
import re
from collections.abc import Sequence
from typing import Annotated

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.storage.checks import Length, NonNegativeFloat, as_typed, check_value

Strength = float | str
"""One number, or the text of a strength that differs from class to class."""

Strengths = Annotated[tuple[Strength, ...], Length()]

COUNT = "count"
USAGE = "a number, many=0.5,medium=0.5,few=1 by group, or count=1:-0.3 by images of the class"


def parse_strength(option: str, value: Strength) -> Strength:
    """A strength in its one spelling: groups in order, numbers as they are short.

    ValueError names the option where it is none.
    """
    number = _number(value)
    if number is not None:
        check_value(option, number, NonNegativeFloat, default=1)
        return number
    text = str(value)
    pairs = [pair.strip().partition("=") for pair in text.split(",")]
    names = [name for name, _, _ in pairs]
    if names == [COUNT]:
        ends = [_number(end) for end in pairs[0][2].split(":")]
        if len(ends) == 2 and all(end is not None and math.isfinite(end) for end in ends):
            return f"{COUNT}={':'.join(map(as_typed, ends))}"
    elif sorted(names) == sorted(set(names) & set(GROUPS)):
        by_group = {name: _number(rest) for name, _, rest in pairs}
        if all(one is not None and 0 <= one < math.inf for one in by_group.values()):
            return ",".join(f"{g}={as_typed(by_group[g])}" for g in GROUPS if g in by_group)
    raise ValueError(f"{option} ({text}) is no strength, each at least 0: {USAGE}.")


def parse_strengths(option: str, values: Sequence[Strength]) -> tuple[Strength, ...]:
    """Several, as ``parse_strength``."""
    return tuple(parse_strength(option, value) for value in values)


def _number(value: Strength) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def stated_numbers(strength: Strength) -> tuple[float, ...]:
    """The strengths that are known without the data set: none of a line in the count."""
    if not isinstance(strength, str):
        return (strength,)
    pairs = [pair.partition("=") for pair in strength.split(",")]
    return tuple(float(number) for name, _, number in pairs if name != COUNT)


def class_strengths(
    option: str, strength: Strength, groups: Sequence[str], counts: Sequence[int]
) -> tuple[float, ...]:
    """The strength of every class, (K,), from their groups (K,) and training counts (K,).

    ValueError unless a strength by group names the groups that the data set has.
    """
    if not isinstance(strength, str):
        return (strength,) * len(counts)
    name, _, line = strength.partition("=")
    if name == COUNT:
        a, b = map(float, line.split(":"))
        return tuple(round(max(0.0, a + b * math.log10(max(n, 1))), 6) for n in counts)
    by_group = {g: float(v) for g, _, v in (p.partition("=") for p in strength.split(","))}
    there = [group for group in GROUPS if group in groups]
    if list(by_group) != there:
        usual = by_group.get("few", max(by_group.values()))
        text = ",".join(f"{g}={as_typed(by_group.get(g, usual))}" for g in there)
        raise ValueError(
            f"{option} ({strength}) must name the groups of the data set, which are "
            f"{', '.join(there)}. Try {text}."
        )
    return tuple(by_group[group] for group in groups)


def as_text(strength: Strength) -> str:
    """As it is typed, numbers short: 1, or many=0.5,few=1."""
    return strength if isinstance(strength, str) else f"{strength:g}"


def as_name(strength: Strength) -> str:
    """For files and MLflow, of letters, digits and _ . -: 1, or many_0.5_few_1."""
    return re.sub(r"[^\w.-]+", "_", as_text(strength))


def as_key(strength: Strength) -> str:
    """Under which scores stand: "1.0", or the text."""
    return strength if isinstance(strength, str) else str(float(strength))


def in_order(strength: Strength) -> tuple[bool, float, str]:
    """Sorts numbers by size, then texts."""
    if isinstance(strength, str):
        return True, 0.0, strength
    return False, strength, ""
