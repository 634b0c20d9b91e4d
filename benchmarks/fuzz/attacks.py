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


class Payload:
    """A pickle that calls something when it is read."""

    def __init__(self, call: Callable[..., Any], *arguments: str) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


CODE = Payload(exec, f"x = '{CANARY}'")
PAYLOADS = (
    Payload(os.system, f"touch /tmp/{CANARY}"),
    CODE,
    Payload(open, f"/tmp/{CANARY}", "w"),
)


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


def every(ending: str, data: bytes) -> Callable[[Files], Files]:
    """All files of an ending replaced."""
    return lambda files: {n: data if n.endswith(ending) else d for n, d in files.items()}


def set_to(name: str, path: str, value: Any) -> Callable[[Files], Files]:
    """A value in a file of JSON, by its dotted path."""

    def attack(files: Files) -> Files:
        tree = here = json.loads(files[name])
        *way, last = path.split(".")
        for key in way:
            here = here[key]
        here[last] = value
        return files | {name: json.dumps(tree).encode()}

    return attack


def attacks(subject: str, files: Files) -> Iterator[Callable[[Files], Files]]:
    """All that are written for a kind of file, and for the endings that its files have."""
    endings = {f".{name.rpartition('.')[2]}" for name in files}
    yield from pickles(files)
    for ending, kinds in BY_ENDING.items():
        if ending in endings:
            yield from kinds()
    yield from OWN.get(subject, ())


def pickles(files: Files) -> Iterator[Callable[[Files], Files]]:
    for payload in PAYLOADS:
        plain, packed = pickle.dumps(payload, protocol=2), pickle_zip(payload)
        for ending in (".pt", ".pth", ".safetensors", "data_batch_1"):
            if any(name.endswith(ending) for name in files):
                yield every(ending, plain)
                yield every(ending, packed)


def texts() -> Iterator[Callable[[Files], Files]]:
    for text in (
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5_000,
        b"\xff\xfe{}",
        b"null",
        b"[]",
    ):
        yield every(".json", text)


def headers() -> Iterator[Callable[[Files], Files]]:
    for length in (2**63, 2**62, 2**40, 100_000_001):
        yield every(".safetensors", struct.pack("<Q", length) + b"{}")
    tensor = {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    head = json.dumps(tensor).encode()
    yield every(".safetensors", struct.pack("<Q", len(head)) + head)


def images() -> Iterator[Callable[[Files], Files]]:
    for size in ((12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)):
        yield every(".png", png_of(*size))


def archives() -> Iterator[Callable[[Files], Files]]:
    yield every(".tar", huge_member())
    for name in (f"../{CANARY}/a", f"/{CANARY}/a", "a" * 5000, "", "."):
        yield every(".tar", evil_tar(name))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        yield every(".tar", evil_tar("a", kind, f"../{CANARY}/secret"))
    yield every(".tar", evil_tar("a", picture=png_of(12_000, 12_000)))


def arrays() -> Iterator[Callable[[Files], Files]]:
    for payload in PAYLOADS:
        out = io.BytesIO()
        np.savez(out, arr_0=np.array([payload], dtype=object))
        yield every(".npz", out.getvalue())
    for shape in ("(1000000000000, 8, 8, 3)", "(-1, 8, 8, 3)", "(6, 8, 8, 3"):
        yield every(".npz", npz(shape, 0))
    yield every(".npz", npz("(1500, 1000, 1000, 1)", 1_500))


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


BY_ENDING: dict[str, Callable[[], Iterator[Callable[[Files], Files]]]] = {
    ".json": texts,
    ".safetensors": headers,
    ".png": images,
    ".tar": archives,
    ".npz": arrays,
}


def network_sizes(name: str) -> list[Callable[[Files], Files]]:
    """A configuration whose network would fill any memory."""
    wild = {
        "model.channels": 1 << 20,
        "model.num_blocks": 1 << 20,
        "model.multipliers": [1] * 10_000,
        "image.num_classes": 1 << 40,
        "image.channels": 1 << 40,
        "image.size": 1 << 30,
        "diffusion.num_steps": 1 << 40,
        "sample.num_steps": 1 << 40,
        "eval.chunk_size": 1 << 40,
    }
    return [set_to(name, path, value) for path, value in wild.items()]


OWN: dict[str, list[Callable[[Files], Files]]] = {
    "shards": [
        set_to("shapes/dataset.json", "image_size", 1 << 20),
        set_to("shapes/dataset.json", "channels", 1 << 30),
        set_to("shapes/dataset.json", "counts.train", [1 << 60] * 3),
        set_to("shapes/dataset.json", "name", f"../{CANARY}"),
    ],
    "checkpoint": [
        *network_sizes("config.json"),
        set_to("config.json", "data.root", f"/{CANARY}"),
        set_to(
            "checkpoints/000000000048/state.json",
            "files",
            {f"../../../{CANARY}/secret": {"bytes": 1, "sha256": ""}},
        ),
    ],
    "exported": network_sizes("config.json"),
    "served": network_sizes("config.json"),
    "diffusers": [
        set_to("unet/config.json", "block_out_channels", [1 << 30, 1 << 30]),
        set_to("unet/config.json", "layers_per_block", 1 << 30),
        set_to("unet/config.json", "num_class_embeds", 1 << 40),
        set_to("unet/config.json", "sample_size", 1 << 40),
        set_to("unet/config.json", "_class_name", "os.system"),
        set_to("scheduler/scheduler_config.json", "num_train_timesteps", 1 << 40),
    ],
    "preset": [
        set_to("winner.json", "options", {"cluster.storage": f"/{CANARY}"}),
        set_to("winner.json", "options", {"init_from": f"/{CANARY}/x.pt"}),
        set_to("winner.json", "options", {"model.channels": 1 << 60}),
        set_to("winner.json", "options", {"eval.guidance": [0.0] * 1_000_000}),
        set_to("winner.json", "dataset", f"../../{CANARY}"),
        set_to("winner.json", "preset", "x.json"),
    ],
    "search": [set_to("records/t000.json", "id", f"../../{CANARY}")],
}
