"""The label of a WebDataset sample: an ASCII integer in .cls, or a field of its .json."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from data_prep.tars import Member, read_range

INTEGER = re.compile(rb"\s*([+-]?[0-9]{1,18})\s*")
LONGEST_LABEL = 1 << 26
"""Bytes of a .cls or .json beyond which it is not read."""


class BadSample(ValueError):
    """A sample without an image or a label."""


LabelReader = Callable[[dict[str, Member], Path], int | str]


def label_reader(label_from: str) -> LabelReader:
    """What finds the label of a sample, by the option --label-from."""
    if label_from == "cls":
        return _label_of_cls
    kind, _, json_field = label_from.partition(":")
    if kind != "json" or not json_field:
        raise ValueError(
            f"--label-from ({label_from}) must be cls, or json: and the name of a field, such "
            "as json:label."
        )
    return partial(_label_of_json, json_field)


def _label_of_cls(parts: dict[str, Member], path: Path) -> int:
    text = _content(parts, "cls", path)
    if not INTEGER.fullmatch(text):
        raise BadSample(f"its .cls holds {text[:20]!r}, which is no integer")
    return int(text)


def _label_of_json(json_field: str, parts: dict[str, Member], path: Path) -> int | str:
    try:
        record = json.loads(_content(parts, "json", path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadSample):
            raise
        raise BadSample(f"its .json is none: {error}") from None
    label = record.get(json_field) if isinstance(record, dict) else None
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise BadSample(
            f"field {json_field} of its .json is {label!r}, neither an integer nor a name"
        )
    return label


def _content(parts: dict[str, Member], suffix: str, path: Path) -> bytes:
    if suffix not in parts:
        raise BadSample(f"it has no .{suffix}")
    member = parts[suffix]
    if member.size > LONGEST_LABEL:
        raise BadSample(f"its .{suffix} has {member.size:,} bytes")
    return read_range(path, member.offset, member.size)
