"""JSON from files that anybody may have written, and JSON as values of dataclasses."""

import json
import math
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cbdm_scale.storage.wording import clip, shorten

T = TypeVar("T")


def parse_json(data: bytes | str, what: str) -> Any:
    """A JSON value; ValueError names ``what`` if it is none, or is nested without measure."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is damaged: it is no JSON ({str(error)[:200]}).") from error


def structure(kind: Any, value: Any, name: str) -> Any:
    """A JSON value as one of type ``kind``: dataclass, tuple, dict, union, Literal, plain.

    An integer may stand for a fraction, a list for a tuple, nothing for a field that has a
    default, and null for a number whose default is nan; nothing else is converted. ValueError
    calls the value ``name``, and what is inside it by dots.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind) and isinstance(value, Mapping):
        hints = get_type_hints(kind)
        for key in value:
            _check_known(hints, key, f"{name}." if name else "")
        inside = {
            key: structure(hints[key], item, f"{name}.{key}" if name else key)
            for key, item in value.items()
            if not (item is None and _is_nan(kind, key))
        }
        try:
            return kind(**inside)  # type: ignore[operator]
        except TypeError as error:  # a field is missing
            raise ValueError(f"{name or 'it'} is not whole: {clip(error)}") from None
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        first, *others = (arg for arg in args if arg is not NoneType)
        if type(value) in others:
            return value
        return structure(first, value, name)
    if origin is tuple and isinstance(value, list | tuple):
        each = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(each) == len(value):
            return tuple(structure(k, v, name) for k, v in zip(each, value, strict=True))
    if origin is list and isinstance(value, list):
        return [structure(args[0], item, name) for item in value]
    if origin in (dict, Mapping) and isinstance(value, dict):
        inside = {key: f"{name}.{key}" if name else key for key in value}
        return {key: structure(args[1], item, inside[key]) for key, item in value.items()}
    if origin is Literal and value in args:
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number and math.isfinite(value):
        return float(value)
    if origin is None and kind is not float and type(value) is kind:
        return value
    raise ValueError(f"{name[:80] or 'it'} takes {in_words(kind)}, got {str(value)[:80]!r}")


def _is_nan(kind: Any, name: str) -> bool:
    """Whether the default of a dataclass's field is nan: a number that is not known."""
    default = kind.__dataclass_fields__[name].default
    return isinstance(default, float) and math.isnan(default)


def in_words(kind: Any) -> str:
    """What an option of this type takes, as people say it."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin in (Union, UnionType):
        return " or ".join("none" if arg is NoneType else in_words(arg) for arg in args)
    if origin is tuple:
        return f"one or more of: {in_words(args[0])}"
    plain = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    return plain.get(kind, "an object")


def with_values(base: T, values: Mapping[str, Any], prefix: str = "") -> T:
    """A dataclass with other values of some fields, as JSON has them.

    Fields of its parts go by dotted names, or stand in an object of their own. ValueError names
    a field that is not known, or whose value is of another kind.
    """
    if not is_dataclass(base) or isinstance(base, type):
        raise ValueError(f"{prefix.rstrip('.')} has no parts, got {shorten(list(values))}")
    hints = get_type_hints(type(base))
    changed: dict[str, Any] = {}
    inside: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        first, mark, rest = name.partition(".")
        _check_known(hints, first, prefix)
        if mark:
            inside.setdefault(first, {})[rest] = value
        elif isinstance(value, Mapping) and is_dataclass(getattr(base, first)):
            inside.setdefault(first, {}).update(value)
        else:
            changed[first] = structure(hints[first], value, prefix + first)
    for first, own in inside.items():
        changed[first] = with_values(getattr(base, first), own, f"{prefix}{first}.")
    return replace(base, **changed)


def _check_known(hints: Mapping[str, Any], name: Any, prefix: str) -> None:
    if name not in hints:
        raise ValueError(f"{prefix}{str(name)[:80]} is no option")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"loss": {"tau": 1}} as {"loss.tau": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Where a folder's options and ours, both flat, are not the same; "" if they are."""
    differing = [
        f"{clip(option, 40)} ({clip(before.get(option, 'absent'), 40)} there, "
        f"{clip(now.get(option, 'absent'), 40)} here)"
        for option in sorted(before.keys() | now.keys())
        if before.get(option) != now.get(option)
    ]
    return shorten(differing, each=140)
