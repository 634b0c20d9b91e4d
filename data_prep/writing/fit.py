"""Which real images the feature classifier is fitted to, and where its file goes.

N = images, C = channels, H = W = image size, K = number of classes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.diffusion.rng import permutation
from cbdm_scale.storage.folder import Storage
from data_prep.source import BadImage, Source

CLASSIFIER = "classifier.safetensors"
MOST_IMAGES = 50_000
MOST_BYTES = 2 << 30
"""Of pixels held at once: 50,000 images of 3 x 112 x 112."""


def fit_classifier(source: Source, target: Storage, log: Callable[[str], None]) -> None:
    """Fit to the eval images, or to a class-balanced subset of many, and store the weights."""
    from data_prep.writing.classifier import train_classifier

    split = source.splits["eval"]
    size = source.channels * source.image_size**2
    rows = choose_rows(split.labels, min(MOST_IMAGES, MOST_BYTES // size))
    if len(rows) < len(split.labels):
        log(
            f"fitting the feature classifier on {len(rows):,} of {len(split.labels):,} images, "
            "classes as equal as they can be"
        )
    else:
        log(f"fitting the feature classifier on {len(rows):,} images")
    images, kept = [], []
    with ProgressBar(len(rows), "images read", log) as progress:
        for row in map(int, rows):
            progress.add(1)
            try:
                images.append(split.image(row).transpose(2, 0, 1))
            except BadImage:
                continue  # left out of the shards too, and named there
            kept.append(row)
    pixels, labels = np.stack(images), split.labels[kept]  # (N, C, H, W), (N,)
    file, _ = train_classifier(pixels, labels, source.class_names, flip=source.mirrors)
    target.write_bytes(CLASSIFIER, file)


def choose_rows(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """All rows of labels (N,) up to ``most``; else as many of each class as fit, in order.

    Every class gives the same number or all it has; which ones is a keyed permutation.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    counts = np.bincount(labels)
    low, high = 0, int(counts.max())  # the largest share per class that fits
    while low < high:
        middle = (low + high + 1) // 2
        fits = np.minimum(counts, middle).sum() <= most
        low, high = (middle, high) if fits else (low, middle - 1)
    order = permutation(0, "classifier/rows", len(labels)).numpy()
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(counts)])
    chosen = [by_class[s : s + min(n, low)] for s, n in zip(starts, counts, strict=False)]
    return np.sort(np.concatenate(chosen))
