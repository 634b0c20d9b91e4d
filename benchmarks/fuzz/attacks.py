"""What somebody with intent would send, by hand."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.fuzz.sandbox import CANARY

Files = dict[str, bytes]
Attack = Callable[[Files], Files]


class Payload:
    """A pickle that calls something when it is read."""

    def __init__(self, call: Callable[..., Any], *arguments: str) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


CODE = Payload(exec, f"x = '{CANARY}'")
TOUCH, OPEN = Payload(os.system, f"touch /tmp/{CANARY}"), Payload(open, f"/tmp/{CANARY}", "w")
PAYLOADS = TOUCH, CODE, OPEN


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and is, up to 12,000 pixels a side: 144 MB of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    packer, packed = zlib.compressobj(1), []
    line = bytes(1 + min(width, 12_000))
    for _ in range(min(height, 12_000)):
        packed.append(packer.compress(line))
    packed.append(packer.flush())
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(packed)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pickle_zip(payload: object) -> bytes:
    """A torch file whose pickle is evil."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return out.getvalue()


def npy_header(text: str) -> bytes:
    head = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def evil_tar(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", picture: bytes = b""
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for ending, data in (("png", picture or png_of(8, 8)), ("cls", b"0")):
            info = tarfile.TarInfo(f"{name}.{ending}")
            info.size, info.type, info.linkname = len(data), kind, target
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def huge_member() -> bytes:
    """A header that says a terabyte."""
    info = tarfile.TarInfo("a.png")
    info.size = 1 << 40
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def every(ending: str, data: bytes) -> Attack:
    """All files of an ending replaced."""
    return lambda files: {n: data if n.endswith(ending) else d for n, d in files.items()}


def set_to(name: str, path: str, value: Any) -> Attack:
    """A value in a file of JSON, by its dotted path."""

    def attack(files: Files) -> Files:
        tree = here = json.loads(files[name])
        *way, last = path.split(".")
        for key in way:
            here = here[key]
        here[last] = value
        return files | {name: json.dumps(tree).encode()}

    return attack


def attacks(subject: str, files: Files) -> Iterator[Attack]:
    """All that are written for a kind of file, and for the endings that its files have."""
    for ending, kinds in BY_ENDING.items():
        if any(name.endswith(ending) for name in files):
            for data in kinds():
                yield every(ending, data)
    for name, values in OWN.get(subject, {}).items():
        for path, value in values:
            yield set_to(name, path, value)


def pickles() -> Iterator[bytes]:
    for payload in PAYLOADS:
        yield pickle.dumps(payload, protocol=2)
        yield pickle_zip(payload)


def texts() -> Iterator[bytes]:
    yield from (b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5_000, b"\xff\xfe{}", b"null", b"[]")


def headers() -> Iterator[bytes]:
    yield from pickles()
    for length in (2**63, 2**62, 2**40, 100_000_001):
        yield struct.pack("<Q", length) + b"{}"
    tensor = {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    head = json.dumps(tensor).encode()
    yield struct.pack("<Q", len(head)) + head


def images() -> Iterator[bytes]:
    for size in ((12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)):
        yield png_of(*size)


def archives() -> Iterator[bytes]:
    yield huge_member()
    for name in (f"../{CANARY}/a", f"/{CANARY}/a", "a" * 5000, "", "."):
        yield evil_tar(name)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        yield evil_tar("a", kind, f"../{CANARY}/secret")
    yield evil_tar("a", picture=png_of(12_000, 12_000))


def arrays() -> Iterator[bytes]:
    for payload in PAYLOADS:
        out = io.BytesIO()
        np.savez(out, arr_0=np.array([payload], dtype=object))
        yield out.getvalue()
    for shape in ("(1000000000000, 8, 8, 3)", "(-1, 8, 8, 3)", "(6, 8, 8, 3"):
        yield npz(shape, 0)
    yield npz("(1500, 1000, 1000, 1)", 1_500)


def npz(shape: str, megabytes: int) -> bytes:
    """arr_0 of a shape, and so much of its pixels."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n"
        with archive.open("arr_0.npy", "w", force_zip64=True) as stream:
            stream.write(npy_header(text))
            for _ in range(megabytes):
                stream.write(bytes(1_000_000))
    return out.getvalue()


BY_ENDING: dict[str, Callable[[], Iterator[bytes]]] = {
    ".pt": pickles,
    ".pth": pickles,
    "data_batch_1": pickles,
    ".json": texts,
    ".safetensors": headers,
    ".png": images,
    ".tar": archives,
    ".npz": arrays,
}
NETWORK: list[tuple[str, Any]] = [
    ("model.channels", 1 << 20),
    ("model.num_blocks", 1 << 20),
    ("model.multipliers", [1] * 10_000),
    ("image.num_classes", 1 << 40),
    ("image.channels", 1 << 40),
    ("image.size", 1 << 30),
    ("diffusion.num_steps", 1 << 40),
    ("sample.num_steps", 1 << 40),
    ("eval.chunk_size", 1 << 40),
]
"""Values of a configuration whose network would fill any memory."""
OUTSIDE = {f"../../../{CANARY}/secret": {"bytes": 1, "sha256": ""}}
OWN: dict[str, dict[str, list[tuple[str, Any]]]] = {
    "shards": {
        "shapes/dataset.json": [
            ("image_size", 1 << 20),
            ("channels", 1 << 30),
            ("counts.train", [1 << 60] * 3),
            ("name", f"../{CANARY}"),
        ],
    },
    "checkpoint": {
        "config.json": [*NETWORK, ("data.root", f"/{CANARY}")],
        "checkpoints/000000000048/state.json": [("files", OUTSIDE)],
    },
    "exported": {"config.json": NETWORK},
    "served": {"config.json": NETWORK},
    "diffusers": {
        "unet/config.json": [
            ("block_out_channels", [1 << 30, 1 << 30]),
            ("layers_per_block", 1 << 30),
            ("num_class_embeds", 1 << 40),
            ("sample_size", 1 << 40),
            ("_class_name", "os.system"),
        ],
        "scheduler/scheduler_config.json": [("num_train_timesteps", 1 << 40)],
    },
    "preset": {
        "winner.json": [
            ("options", {"cluster.storage": f"/{CANARY}"}),
            ("options", {"init_from": f"/{CANARY}/x.pt"}),
            ("options", {"model.channels": 1 << 60}),
            ("options", {"eval.guidance": [0.0] * 100_000}),
            ("dataset", f"../../{CANARY}"),
            ("preset", "x.json"),
        ],
    },
    "search": {"records/t000.json": [("id", f"../../{CANARY}")]},
}
"""Subject -> file -> values by their paths."""
