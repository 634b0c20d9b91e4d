"""The chunks of a set in storage: each is there whole or not at all.

<folder>/set.json                             the plan
<folder>/chunks/<first>-<stop>.safetensors    images (n, C, H, W) uint8, labels (n,) int64
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save

from cbdm_scale.generation.plan import FORMAT_VERSION, Chunk, SetPlan
from cbdm_scale.storage.folder import Storage


@dataclass(frozen=True)
class ChunkStore:
    """A set of images, its finished chunks."""

    folder: Storage
    plan: SetPlan

    def claim(self) -> None:
        """Write set.json, or check that the one there is of this plan and format."""
        if not self.folder.exists("set.json"):
            self.folder.write_json("set.json", self.plan.to_dict())
            return
        where = self.folder.path("set.json")
        try:
            there = self.folder.read_json("set.json")
            version = int(there["format_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{where} is damaged ({error!r}). Remove the folder, or give another --out."
            ) from error
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{where} has format version {version}, this cbdm_scale writes "
                f"{FORMAT_VERSION}. Give another --out, or use the version that made it."
            )
        if there != self.plan.to_dict():
            raise ValueError(f"{where} is another set's. Give another --out.")

    def name(self, chunk: Chunk) -> str:
        return f"chunks/{chunk[0]:09d}-{chunk[1]:09d}.safetensors"

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Those that are not there, or not with the size that they must have."""
        there = set(self.folder.child("chunks").list())
        sizes: dict[int, int] = {}
        lacking = []
        for chunk in chunks:
            n, name = chunk[1] - chunk[0], self.name(chunk)
            if n not in sizes:
                sizes[n] = len(
                    _pack(np.zeros((n, *self.plan.shape), np.uint8), np.zeros(n, int))
                )
            if name.rpartition("/")[2] not in there or self.folder.size(name) != sizes[n]:
                lacking.append(chunk)
        return lacking

    def finished(self) -> list[Chunk]:
        """The longest row of whole chunks from the first image on."""
        bounds: dict[int, int] = {}
        for name in self.folder.child("chunks").list():
            first, _, stop = name.removesuffix(".safetensors").partition("-")
            if first.isdecimal() and stop.isdecimal():
                bounds[int(first)] = max(int(stop), bounds.get(int(first), 0))
        chunks: list[Chunk] = []
        at = 0
        while at in bounds and not self.missing([(at, bounds[at])]):
            chunks.append((at, bounds[at]))
            at = bounds[at]
        return chunks

    def checksum(self, chunk: Chunk) -> str:
        """The one that stands in the file; ``read`` says whether it holds."""
        name = self.name(chunk)
        if self.folder.is_local:
            with open(self.folder.local_path(name), "rb") as file:
                data = file.read(8)
                data += file.read(int.from_bytes(data, "little"))
        else:
            data = self.folder.read_bytes(name)
        return str(_metadata(data)["crc32"])

    def write(self, chunk: Chunk, images: NDArray[np.uint8]) -> None:
        assert images.shape == (chunk[1] - chunk[0], *self.plan.shape), images.shape
        labels = self.plan.labels_of(torch.arange(*chunk)).numpy()
        self.folder.write_bytes(self.name(chunk), _pack(images, labels))

    def read(self, chunk: Chunk) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (n, C, H, W) and labels (n,); ValueError if the file is damaged."""
        name = self.name(chunk)
        data = self.folder.read_bytes(name)
        try:
            about = _metadata(data)
            tensors = load(data)
            images, labels = tensors["images"], tensors["labels"]
            if about["crc32"] != _crc32(images, labels):
                raise ValueError("its checksum is wrong")
        except Exception as error:  # safetensors raises its own
            raise ValueError(
                f"chunk {self.folder.path(name)} is damaged: {error!r}. Remove it and type the "
                "same command again: it is made again."
            ) from error
        return images, labels

    def read_all(
        self, chunks: Sequence[Chunk]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Chunk after chunk, so that the whole set is never in memory."""
        return (self.read(chunk) for chunk in chunks)


def _metadata(data: bytes) -> dict[str, str]:
    """What a safetensors file says of itself: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    about: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return about


def _crc32(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    return f"{zlib.crc32(images.tobytes(), zlib.crc32(labels.tobytes())):08x}"


def _pack(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    tensors: dict[str, NDArray[Any]] = {
        "images": np.ascontiguousarray(images),
        "labels": labels.astype(np.int64),
    }
    return bytes(save(tensors, metadata={"crc32": _crc32(images, labels)}))
