"""The records of the spool: a line of JSON each, of one of four kinds.

    {"seq": 7, "time": 1700000000000, "step": 480, "scalars": {"loss/total": 0.1, "x": "nan"}}
    {"seq": 8, "time": ..., "step": 480, "image": "samples", "file": "000000000008.png"}
    {"seq": 9, "time": ..., "step": 480, "model": URL of a checkpoint, "aliases": ["newest"]}
    {"seq": 10, "time": ..., "tags": {"state": "finished"}}

``seq`` counts the records of a run, ``time`` is in milliseconds, ``step`` is images seen.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from cbdm_scale.storage.json import parse_json, structure

Record = dict[str, Any]
MOST = 2**63
"""No count reaches it: MLflow's columns hold no more."""


@dataclass(frozen=True)
class _Tags:
    seq: int
    time: int
    tags: dict[str, str]


@dataclass(frozen=True)
class _Scalars:
    seq: int
    time: int
    step: int
    scalars: dict[str, Literal["nan", "inf", "-inf"] | float]


@dataclass(frozen=True)
class _Image:
    seq: int
    time: int
    step: int
    image: str
    file: str


@dataclass(frozen=True)
class _Model:
    seq: int
    time: int
    step: int
    model: str
    aliases: list[str]


KINDS = {"scalars": _Scalars, "image": _Image, "model": _Model, "tags": _Tags}


def encode(record: Record) -> bytes:
    """A record as its line."""
    return (json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n").encode()


def number(value: float) -> float | str:
    """Strict JSON has no nan or inf: they are written as words that ``float`` reads."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def image_file(seq: int) -> str:
    """The name of a record's image, beside it."""
    return f"{seq:012d}.png"


def decode(line: bytes, after: int = -1) -> Record | None:
    """The record of a line, None where seq is not above ``after``; ValueError if it is none."""
    record = parse_json(line, "it")
    if not isinstance(record, dict):
        raise ValueError("it is no object")
    seq = record.get("seq")
    if type(seq) is int and seq <= after:
        return None
    kinds = [kind for name, kind in KINDS.items() if name in record]
    if len(kinds) != 1:
        raise ValueError(f"it has {len(kinds)} of {', '.join(KINDS)}, and takes one")
    structure(kinds[0], record, "")
    if wrong := [k for k in ("seq", "time", "step") if not 0 <= record.get(k, 0) < MOST]:
        raise ValueError(f"{wrong[0]} ({record[wrong[0]]}) is no count")
    if record.get("file", image_file(record["seq"])) != image_file(record["seq"]):
        raise ValueError(f"file takes {image_file(record['seq'])}, got {record['file']!r:.80}")
    return record


def decode_all(data: bytes, after: int = -1) -> tuple[list[Record], list[tuple[bytes, str]]]:
    """The records of a segment above ``after``; the lines that are none, and why.

    What a process did not finish writing, the end without a line break, is neither.
    """
    records, damaged = [], []
    for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]:
        try:
            record = decode(line, after)
        except ValueError as error:
            damaged.append((line, str(error)))
        else:
            records += [record] if record else []
    return records, damaged
