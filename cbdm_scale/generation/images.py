"""A set of generated images as a source of features: read by number, on any worker.

Shapes: n = images asked for, N = images of the set, (C, H, W) an image.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from cbdm_scale.generation.plan import Chunk, SetPlan
from cbdm_scale.generation.store import ChunkStore
from cbdm_scale.storage.folder import Storage


@dataclass
class SetImages:
    """The first N images of a set, of which all chunks are there."""

    store: ChunkStore
    chunks: Sequence[Chunk]
    _last: tuple[Chunk, NDArray[np.uint8]] | None = field(default=None, repr=False)
    """The chunk that was read last: jobs ask for images in order."""

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_last": None}

    @property
    def count(self) -> int:
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
        labels: NDArray[np.int64] = self.store.plan.labels_of(torch.arange(self.count)).numpy()
        return labels

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
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
            f"samples ({url}): its set.json is damaged or of another version ({error!r}). Make "
            "the set again with python -m cbdm_scale.sample."
        ) from error
    store = ChunkStore(folder, plan)
    chunks = plan.chunks(num_images) if num_images else store.finished()
    missing = store.missing(chunks)
    if missing or not chunks:
        there = store.finished()
        raise ValueError(
            f"samples ({url}) holds {there[-1][1] if there else 0} finished images, not "
            f"{num_images or 'any'}. Type its sample command again: it goes on."
        )
    return SetImages(store, chunks)
