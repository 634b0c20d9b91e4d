"""A finished set as a data set of shards, and the real one's images beside it.

Shapes: n = images of a chunk, N = images of the set, (C, H, W) an image, K = classes.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import Manifest, dataset_folder
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.generation.plan import Chunk
from cbdm_scale.generation.store import ChunkStore
from cbdm_scale.storage.disk import naming_the_disk
from cbdm_scale.storage.folder import Storage
from data_prep.source import Source, Split
from data_prep.writing.shards import write_dataset

SAMPLES_PER_SHARD = 1000
CLASSIFIER = "classifier.safetensors"


@dataclass(frozen=True)
class RawImages:
    """Images (N, H, W, C) in a raw file, one at a time, in any process."""

    path: str
    shape: tuple[int, int, int]

    def __call__(self, i: int) -> NDArray[np.uint8]:
        size = int(np.prod(self.shape))
        flat = np.fromfile(self.path, np.uint8, count=size, offset=i * size)
        return flat.reshape(self.shape)


def write_shards(
    store: ChunkStore,
    chunks: Sequence[Chunk],
    target: Path,
    *,
    name: str,
    class_names: Sequence[str],
    real: Manifest | None,
    root: str,
    log: Callable[[str], None],
) -> None:
    """target/<name>/ as data_prep writes data sets: the images are the train split.

    class_names (K,), or () where they are not known: then the classes are called by number.
    Where the real data set is to be had, its eval split and its feature classifier come along,
    so that a network that learns from generated images is compared with real ones.
    """
    plan = store.plan
    channels, size, _ = plan.shape
    num_images = chunks[-1][1]
    folder = target / name
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="cbdm-samples-") as scratch:
        raw = Path(scratch, "images")
        with naming_the_disk(scratch, "TMPDIR"), open(raw, "wb") as file:
            for images, _ in store.read_all(chunks):
                file.write(images.transpose(0, 2, 3, 1).tobytes())
        made = Split(
            labels=plan.labels_of(torch.arange(num_images)).numpy(),
            keys=[f"made-{i:06d}" for i in range(num_images)],
            image=RawImages(str(raw), (size, size, channels)),
        )
        splits = {"train": made}
        if real and "eval" in real.counts:
            splits["eval"] = real_split(real, root, "eval")
        source = Source(
            name=name,
            class_names=tuple(class_names or map(str, range(plan.num_classes))),
            image_size=size,
            channels=channels,
            splits=splits,
            made=f"generated: {plan.name}" + (f", eval of {real.fingerprint}" if real else ""),
            mirrors=False,
        )
        write_dataset(
            source, folder, samples_per_shard=SAMPLES_PER_SHARD, seed=plan.seed, log=log
        )
    there = Storage(dataset_folder(root, real.name)) if real else None
    if there and there.exists(CLASSIFIER):
        (folder / CLASSIFIER).write_bytes(there.read_bytes(CLASSIFIER))


@dataclass(frozen=True)
class _RealImages:
    """The images of a split that is there, by their row."""

    reader: ShardReader

    def __call__(self, i: int) -> NDArray[np.uint8]:
        return self.reader.load(i).transpose(1, 2, 0)


def real_split(real: Manifest, root: str, name: str) -> Split:
    """A split of the real data set as it is."""
    index = open_index(root, real.name, name)
    return Split(
        labels=index.labels[np.arange(index.num_samples)],
        keys=[index.key(row) for row in range(index.num_samples)],
        image=_RealImages(ShardReader(root, real.name, index)),
    )
