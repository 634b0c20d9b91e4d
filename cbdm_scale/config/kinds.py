"""Whether a value of JSON can stand where a value of a configuration stands."""

import math
from collections.abc import Mapping
from typing import Any, get_type_hints


def check_kinds(usual: Any, values: Mapping[str, Any], part: str) -> None:
    """ValueError names a value of another kind than the usual one of a dataclass."""
    kinds = get_type_hints(type(usual))
    for name, value in values.items():
        option = f"{part}.{name}" if part else name
        if not hasattr(usual, name):
            raise ValueError(f"{option[:80]} is no option")
        now = getattr(usual, name)
        if kinds[name] is float:  # whose usual value may be written as an integer
            now = float(now)
        if not same_kind(list(now) if isinstance(now, tuple) else now, value):
            raise ValueError(f"{option} takes a value like {now!r}, got {str(value)[:80]!r}")


def same_kind(now: Any, value: Any) -> bool:
    """Whether a JSON value can stand where ``now`` stands; an integer can for a fraction."""
    if isinstance(now, bool) or isinstance(value, bool):
        return isinstance(now, bool) and isinstance(value, bool)
    if now is None:  # an optional number, or a name
        return value is None or isinstance(value, int | float | str)
    if isinstance(now, float):
        return isinstance(value, int | float) and math.isfinite(value)
    if isinstance(now, list):
        kind = str if now and isinstance(now[0], str) else int | float
        return isinstance(value, list | tuple) and all(isinstance(v, kind) for v in value)
    return isinstance(value, type(now))
