"""What values a field of a dataclass may have: said in its type, checked when it is made.

    lr: PositiveFloat = 2e-4
    dropout: Annotated[float, Range(ge=0, lt=1)] = 0.1
    guidance: Annotated[tuple[NonNegativeFloat, ...], Length()] = (1.0,)
    device: Literal["auto", "cpu", "gpu"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self, "train.")

The names are pydantic's. What relates two fields is code after ``check_fields``.
"""

import functools
import math
import re
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cbdm_scale.storage.wording import clip


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds of a number, each or none; NaN and infinities are outside."""

    ge: float = -math.inf
    """The least, allowed."""

    gt: float = -math.inf
    """What it must be above."""

    le: float = math.inf
    """The largest, allowed."""

    lt: float = math.inf
    """What it must be below."""

    hint: str = ""
    """The way out, a sentence; "" names the default."""

    def __contains__(self, value: Any) -> bool:
        return bool(self.ge <= value <= self.le and self.gt < value < self.lt)

    def __str__(self) -> str:
        if -math.inf < self.ge and self.le < math.inf:
            return f"from {self.ge:,} to {self.le:,}"
        words = (
            ("at least", self.ge),
            ("above", self.gt),
            ("at most", self.le),
            ("below", self.lt),
        )
        told = [f"{word} {bound:,}" for word, bound in words if abs(bound) < math.inf]
        return " and ".join(told) or "finite"


@dataclass(frozen=True, kw_only=True)
class Length:
    """How many values a tuple has: one or more, up to ``le``."""

    le: float = math.inf
    """The most."""

    hint: str = ""
    """As of ``Range``."""

    def __contains__(self, value: Any) -> bool:
        return 0 < len(value) <= self.le

    def __str__(self) -> str:
        return f"1 to {self.le} values" if self.le < math.inf else "one value or more"


PositiveInt = Annotated[int, Range(ge=1)]
NonNegativeInt = Annotated[int, Range(ge=0)]
PositiveFloat = Annotated[float, Range(gt=0)]
NonNegativeFloat = Annotated[float, Range(ge=0)]
UnitFloat = Annotated[float, Range(ge=0, le=1)]
"""A share or a probability."""


def check_fields(options: Any, prefix: str = "") -> None:
    """ValueError unless every field of a dataclass is what its type says.

    ``prefix`` stands before their names where they are typed: "train.", or "--" for a flag.
    """
    owner: type = type(options)
    kinds = field_types(owner)
    for field in fields(options):
        value, kind = getattr(options, field.name), kinds[field.name]
        flag = "--" + f"{prefix.removeprefix('--')}{field.name}".replace("_", "-")
        name = flag if prefix == "--" else prefix + field.name
        check_value(name, value, kind, default=field.default, flag=flag)


def check_value(
    name: str, value: Any, kind: Any, *, default: Any = None, flag: str = ""
) -> None:
    """ValueError unless a value is what a type says; it names the value, and a default.

    flag: the option as it is typed, before the default.
    """
    wrong = _wrong(value, kind)
    if wrong is not None:
        words, hint = wrong
        usual = (
            ""
            if default in (None, "", (), MISSING)
            else f"Try {f'{flag} {as_typed(default)}'.strip()}."
        )
        got = repr(value) if isinstance(value, str) else as_typed(value) or "none"
        raise ValueError(f"{name} must be {words}, got {clip(got)}. {hint or usual}".rstrip())


_NUMBERS: dict[Any, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}


@functools.cache
def field_types(owner: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with their bounds."""
    return get_type_hints(owner, include_extras=True)


def _wrong(value: Any, kind: Any) -> tuple[str, str] | None:
    """What a value should be instead, and the hint; None where it is what the type says."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        found = [_wrong(value, arg) for arg in args if arg is not NoneType]
        return None if value is None or None in found else found[0]
    if origin is Literal and value not in args:
        *others, last = map(str, args)
        return f"{', '.join(others)} or {last}", ""
    if origin is tuple:
        each = next(filter(None, (_wrong(one, args[0]) for one in value)), None)
        return each and (f"{each[0]} each", each[1])
    if origin is Annotated:
        outside = ((str(mark), mark.hint) for mark in args[1:] if value not in mark)
        return _wrong(value, args[0]) or next(outside, None)
    number, words = _NUMBERS.get(kind, (object, ""))
    return None if isinstance(value, number) else (words, "")


def bounds_in_words(kind: Any) -> str:
    """The bounds of a type's numbers, or of the numbers in it: above 0; "" for none."""
    marks = [str(mark) for mark in getattr(kind, "__metadata__", ()) if type(mark) is Range]
    inside = [bounds_in_words(arg) for arg in get_args(kind)[:1]]
    return next(filter(None, marks + inside), "")


def as_typed(value: Any) -> str:
    """A value, or several, as they are typed after an option."""
    if isinstance(value, tuple | list):
        return " ".join(map(as_typed, value))
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
"""What may become the name of a folder: no path, nothing hidden, nothing above."""


def check_name(option: str, name: str) -> None:
    """ValueError if a name would not be one folder below the one that it is meant for."""
    if not NAME.fullmatch(name):
        clean = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip("._-")[:200]
        raise ValueError(
            f"{option} ({name[:80]}) becomes a folder: use letters, digits, - _ and ., 200 at "
            f"most, the first a letter or a digit. Try --{option} {clean or 'mine'}."
        )
