"""The exponential long tail of the literature, and the images that it keeps.

Cui et al., "Class-Balanced Loss Based on Effective Number of Samples" (CVPR 2019); the subset
is drawn as LDAM-DRW (Cao et al., NeurIPS 2019) and those after it do. K = number of classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def long_tail_counts(
    largest: int, num_classes: int, imbalance: float, at_least: int = 0
) -> tuple[int, ...]:
    """Class c keeps int(largest * imbalance ** (c / (K - 1))) images, (K,)."""
    if not 0 < imbalance <= 1:
        raise ValueError(
            f"--imbalance ({imbalance}) is the smallest class over the largest: "
            "a number above 0 and up to 1, such as 0.01."
        )
    counts = tuple(
        max(at_least, int(largest * imbalance ** (c / (num_classes - 1))))
        for c in range(num_classes)
    )
    if min(counts) < 1:
        raise ValueError(
            f"--imbalance ({imbalance}) leaves class {counts.index(0)} without an image. "
            f"Try --imbalance {1.01 / largest:.4f}."
        )
    return counts


def long_tail_rows(
    labels: NDArray[np.int64], counts: Sequence[int], seed: int
) -> NDArray[np.int64]:
    """Rows of the images kept, class by class: the first n of each class's shuffled rows.

    One generator serves all classes in order, so seed 0 gives the images that
    ``np.random.seed(0)`` and ``np.random.shuffle`` give in the literature's code.
    """
    generator = np.random.RandomState(seed)
    kept = []
    for c, n in enumerate(counts):
        rows = np.flatnonzero(labels == c)
        if len(rows) < n:
            raise ValueError(f"class {c} has {len(rows)} images, fewer than the {n} to keep")
        generator.shuffle(rows)
        kept.append(rows[:n])
    return np.concatenate(kept)
