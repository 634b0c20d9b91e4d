"""photos16: real photographs, small and few, for comparing methods on CPUs.

CIFAR-10 at 16 pixels: 500 images of the first class down to 5 of the last, 1,236 in all, and
1,500 others of every class that metrics compare with, so that copies are not rewarded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_prep.options import Options
from data_prep.readers.cifar import read_cifar
from data_prep.readers.long_tail import IMBALANCE, long_tail_counts, long_tail_rows
from data_prep.source import Source

LARGEST = 500
OTHERS = 1_500
"""Images of a class in the eval split, at most; none of them is in train."""


@dataclass(frozen=True)
class _Halved:
    """Images of a split with half as many pixels on each side."""

    image: Callable[[int], NDArray[np.uint8]]

    def __call__(self, i: int) -> NDArray[np.uint8]:
        return halved(self.image(i))


def halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of every 2 x 2 pixels, rounded: (H, W, C) -> (H / 2, W / 2, C)."""
    height, width, channels = image.shape
    blocks = image.reshape(height // 2, 2, width // 2, 2, channels)
    mean: NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return mean


def read_photos16(name: str, options: Options) -> Source:
    """The images that --seed draws; from CIFAR-10 as published."""
    source = read_cifar("cifar10", options)
    full, k = source.splits["train"], len(source.class_names)
    smallest = int(np.bincount(full.labels, minlength=k).min())
    counts = long_tail_counts(min(LARGEST, smallest), k, IMBALANCE, at_least=1)
    rows = long_tail_rows(full.labels, counts, options.seed)
    rest = np.setdiff1d(np.arange(len(full.labels)), rows)
    others = [rest[full.labels[rest] == c][:OTHERS] for c in range(k)]
    splits = {
        "train": full.take(rows),
        "eval": full.take(np.concatenate(others)),
        "test": source.splits["test"],
    }
    return replace(
        source,
        name=name,
        image_size=source.image_size // 2,
        splits={s: replace(one, image=_Halved(one.image)) for s, one in splits.items()},
        made=f"{source.made} at half its size, exponential long tail {IMBALANCE} from "
        f"{counts[0]}, seed {options.seed}; eval are other images",
    )
