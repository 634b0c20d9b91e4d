"""A set of images in storage: each chunk is there whole or not at all.

<folder>/set.json                             the plan
<folder>/chunks/<first>-<stop>.safetensors    images (n, C, H, W) uint8, labels (n,) int64, and
                                              crc32 (1,) uint32 of both

Shapes: n = images of a chunk, or asked for; N = images of the set, (C, H, W) an image.
"""

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load, save

from cbdm_scale.generation.plan import Chunk, SetPlan
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import prog_of


@dataclass(frozen=True)
class ChunkStore:
    """A set of images, its finished chunks."""

    folder: Storage
    plan: SetPlan

    def write_plan(self) -> None:
        """Write set.json; ValueError if another set's, or none of this version, is there."""
        if not self.folder.exists("set.json"):
            self.folder.write_json("set.json", self.plan.to_dict())
            return
        where = self.folder.path("set.json")
        try:
            there = SetPlan.from_dict(self.folder.read_json("set.json"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{where} is damaged or of another version ({error!r}). Remove the folder, "
                "give another --out, or use the version that made it."
            ) from error
        if there != self.plan:
            raise ValueError(f"{where} is another set's. Give another --out.")
        if self.plan.class_names and not there.class_names:  # of an older version
            self.folder.write_json("set.json", self.plan.to_dict())

    def name(self, chunk: Chunk) -> str:
        """The file of a chunk, within the folder."""
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

    def checksum(self, chunk: Chunk) -> int:
        """The one that stands in the file; ``read`` says whether it holds."""
        name = self.name(chunk)
        if self.folder.is_local:
            with safe_open(self.folder.local_path(name), "np") as file:
                return int(file.get_tensor("crc32")[0])
        return int(load(self.folder.read_bytes(name))["crc32"][0])

    def write(self, chunk: Chunk, images: NDArray[np.uint8]) -> None:
        """The images (n, C, H, W) of a chunk."""
        assert images.shape == (chunk[1] - chunk[0], *self.plan.shape), images.shape
        labels = self.plan.labels_of(torch.arange(*chunk)).numpy()
        self.folder.write_bytes(self.name(chunk), _pack(images, labels))

    def read(self, chunk: Chunk) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (n, C, H, W) and labels (n,); ValueError if the file is damaged."""
        name = self.name(chunk)
        data = self.folder.read_bytes(name)
        try:
            tensors = load(data)
            images, labels = tensors["images"], tensors["labels"]
            if tensors["crc32"] != _crc32(images, labels):
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


def _crc32(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint32]:
    """(1,) of the labels and the images behind them."""
    return np.array([zlib.crc32(images.tobytes(), zlib.crc32(labels.tobytes()))], np.uint32)


def _pack(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    images, labels = np.ascontiguousarray(images), labels.astype(np.int64)
    crc32 = _crc32(images, labels)
    return bytes(save({"images": images, "labels": labels, "crc32": crc32}))


@dataclass
class SetImages:
    """The first N images of a set, of which all chunks are there: a source of features."""

    store: ChunkStore
    chunks: Sequence[Chunk]
    _last: tuple[Chunk, NDArray[np.uint8]] | None = field(default=None, repr=False)
    """The chunk that was read last: jobs ask for images in order."""

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_last": None}

    @property
    def count(self) -> int:
        """N."""
        return self.chunks[-1][1]

    @cached_property
    def fingerprint(self) -> str:
        """Of the checksums of all chunks: what was made, not what should have been."""
        digest = hashlib.sha256()
        for chunk in self.chunks:
            digest.update(f"{chunk} {self.store.checksum(chunk)}\n".encode())
        return digest.hexdigest()[:16]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,)."""
        labels: NDArray[np.int64] = self.store.plan.labels_of(torch.arange(self.count)).numpy()
        return labels

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Images (n, C, H, W) by their numbers in the set, in any order."""
        firsts = [first for first, _ in self.chunks]
        images = []
        for number in numbers:
            chunk = self.chunks[int(np.searchsorted(firsts, number, side="right")) - 1]
            if self._last is None or self._last[0] != chunk:
                self._last = chunk, self.store.read(chunk)[0]
            images.append(self._last[1][number - chunk[0]])
        return np.stack(images)


def open_set(url: str, num_images: int = 0) -> SetImages:
    """The set that the sample command left in a folder, or its first ``num_images`` images."""
    folder = Storage(url)
    try:
        plan = SetPlan.from_dict(folder.read_json("set.json"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{url}: its set.json is damaged or of another version ({error!r}). Make "
            f"the set again with {prog_of('sample')}."
        ) from error
    store = ChunkStore(folder, plan)
    chunks = plan.chunks(num_images) if num_images else store.finished()
    missing = store.missing(chunks)
    if missing or not chunks:
        there = store.finished()
        raise ValueError(
            f"{url} holds {there[-1][1] if there else 0} finished images, not "
            f"{num_images or 'any'}. Type its sample command again: it goes on."
        )
    return SetImages(store, chunks)
