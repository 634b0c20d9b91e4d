"""Seeded damage to files, from blind bits to fields that mean something."""

import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

from benchmarks.fuzz.sandbox import CANARY

Mutation = Callable[[bytes, random.Random], bytes]
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2, 1e308, -1e308, 0.5, 2**31, 2**63, 10**30, "", "x", "nan"),
    *("../../" + CANARY + "/secret", "/" + CANARY, [], {}, [[]], [0] * 1000, "y" * 100_000),
    *({"a": {"b": [None]}}, [-1, "1", None], "\x00", "\ud800", float("nan"), float("inf")),
)


DEEP: Any = []
for _ in range(600):
    DEEP = [DEEP]


# ----------------------------------------------------------------------------
# Bytes.


def flip(data: bytes, chance: random.Random) -> bytes:
    """One to eight bits."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8)) if out else 0):
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def grow(data: bytes, chance: random.Random) -> bytes:
    return data + chance.randbytes(chance.choice((1, 512, 100_000)))


def overwrite(data: bytes, chance: random.Random) -> bytes:
    """A number at a random place: extremes of 1 to 8 bytes."""
    out, width = bytearray(data), chance.choice((1, 2, 4, 8))
    if len(out) < width:
        return data
    at = chance.randrange(min(len(out) - width + 1, chance.choice((64, 4096, 1 << 40))))
    fill = chance.choice((b"\x00", b"\xff", b"\x7f" + b"\xff" * 7, b"\x80" + b"\x00" * 7))
    out[at : at + width] = (fill * width)[:width]
    return bytes(out)


def splice(data: bytes, chance: random.Random) -> bytes:
    """A piece of the file over another piece of it."""
    if len(data) < 4:
        return data
    size = chance.randrange(1, min(len(data), 4096))
    a, b = (chance.randrange(len(data) - size + 1) for _ in range(2))
    return data[:a] + data[b : b + size] + data[a + size :]


def noise(data: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((0, len(data))))


BYTES: tuple[Mutation, ...] = (*[flip] * 2, cut, grow, *[overwrite] * 2, splice, *[noise] * 2)


# ----------------------------------------------------------------------------
# What has a form.


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    found = []
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        found.append((tree, key))
        if isinstance(tree[key], dict | list):
            found += places(tree[key])
    return found


def edit(tree: Any, chance: random.Random) -> Any:
    """One to three values changed, taken out or put under another name."""
    for _ in range(chance.choice((1, 1, 1, 3))):
        there = places(tree) if isinstance(tree, dict | list) else []
        if not there:
            return chance.choice(VALUES)
        container, key = chance.choice(there)
        way = chance.randrange(8)
        if way == 0:
            del container[key]
        elif way == 1 and isinstance(container, dict):
            container[chance.choice(("", "__class__", "..", "x" * 1000))] = container.pop(key)
        elif way == 2:
            container[key] = DEEP
        else:
            container[key] = chance.choice(VALUES)
    return tree


def json_text(data: bytes, chance: random.Random) -> bytes:
    return json.dumps(edit(json.loads(data), chance)).encode("utf-8", "surrogatepass")


def safetensors(data: bytes, chance: random.Random) -> bytes:
    """The header: names, types, shapes and offsets."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json_text(data[8 : 8 + length], chance)
    size = chance.choice((len(header), len(header), len(header), 2**63, len(data)))
    return struct.pack("<Q", size) + header + data[8 + length :]


def zipped(data: bytes, chance: random.Random) -> bytes:
    """A member damaged under a right checksum, renamed, taken out, or blown up."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        struck, way = chance.choice(names), chance.randrange(6)
        for name in names:
            content = old.read(name)
            if name != struck:
                new.writestr(name, content)
            elif way == 0:
                new.writestr(f"../{CANARY}/{name}", content)
            elif way == 1:
                big = content + bytes(200_000_000)
                new.writestr(name, big, zipfile.ZIP_DEFLATED)
            elif way < 5:
                new.writestr(name, chance.choice(BYTES)(content, chance))
    return out.getvalue()


def tarred(data: bytes, chance: random.Random) -> bytes:
    """A member of another name, kind, size or content, or gone."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=out, mode="w") as new,
    ):
        members = old.getmembers()
        struck, way = chance.randrange(len(members)), chance.randrange(7)
        for number, info in enumerate(members):
            stream = old.extractfile(info)
            content = stream.read() if stream else b""
            if number != struck:
                new.addfile(info, io.BytesIO(content))
                continue
            if way == 0:
                names = f"../{CANARY}/x.png", f"/{CANARY}/x.png", "", "a\n"
                info.name = chance.choice(names)
            elif way == 1:
                kinds = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE
                info.type, info.linkname = chance.choice(kinds), f"../{CANARY}/secret"
            elif way == 2:
                info.name = "deep/" * 40 + info.name
            elif way > 3:
                content = chance.choice(BYTES)(content, chance)
                info.size = len(content)
            if way != 3:
                new.addfile(info, io.BytesIO(content))
    return out.getvalue()


def parquet(data: bytes, chance: random.Random) -> bytes:
    """A column with other values, of another type, or gone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    name = chance.choice(table.column_names)
    at, old = table.column_names.index(name), table.column(name)
    way = chance.randrange(5)
    if way == 0:
        table = table.drop_columns([name])
    elif way == 1:
        table = table.set_column(at, name, pa.array(["x"] * len(old)))
    elif way == 2:
        table = table.set_column(at, name, pa.nulls(len(old), old.type))
    else:
        values = old.to_pylist()
        if values:
            wild = chance.choice((-1, 0, 1, 2**31 - 1, f"../{CANARY}/secret", "", b"\xff" * 32))
            values[chance.randrange(len(values))] = wild
        try:
            table = table.set_column(at, name, pa.array(values, old.type))
        except (pa.ArrowException, TypeError, OverflowError):
            table = table.set_column(at, name, pa.nulls(len(old), old.type))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


FORMS: dict[str, Mutation] = {
    ".json": json_text,
    ".safetensors": safetensors,
    ".npz": zipped,
    ".pt": zipped,
    ".pth": zipped,
    ".tar": tarred,
    ".parquet": parquet,
}


def mutate(files: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """The files with one of them, now and then two, damaged or gone."""
    out = dict(files)
    for _ in range(chance.choice((1, 1, 1, 2))):
        name = chance.choice(sorted(out))
        ending = f".{name.rpartition('.')[2]}"
        way = chance.random()
        if way < 0.04 and len(out) > 1:
            del out[name]
        elif ending in FORMS and way < 0.6:
            try:
                out[name] = FORMS[ending](out[name], chance)
            except Exception:  # damaged twice: its form is gone
                out[name] = chance.choice(BYTES)(out[name], chance)
        else:
            out[name] = chance.choice(BYTES)(out[name], chance)
    return out
