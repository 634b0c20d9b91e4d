"""Label distributions Y, made from class frequencies.

Shapes: K = number of classes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def class_probs(counts: Tensor, power: float) -> Tensor:
    """Probabilities proportional to ``counts ** power``, shape (K,), float64.

    ===== =================== ==========================
    power label set Y (4.2)   resampling of images (4.1)
    ===== =================== ==========================
    1     Y^train             none
    1/2   Y^sqr               SQRT-RS
    0     Y^bal               RS
    ===== =================== ==========================
    """
    empty = (counts <= 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"every class needs at least one image; {len(empty)} have none, the first of them "
            f"class {empty[0]}"
        )
    probs = counts.double() ** power
    return probs / probs.sum()


def draw_labels(probs: ArrayLike, u: ArrayLike) -> NDArray[np.int64]:
    """Labels by inverse transform, on the host: probs (K,), u (N,) in [0, 1) -> (N,)."""
    cdf = np.cumsum(np.asarray(probs, np.float64))
    found = np.searchsorted(cdf, np.asarray(u, np.float64) * cdf[-1], side="right")
    labels: NDArray[np.int64] = found.clip(max=len(cdf) - 1)
    return labels


def class_cyclic(numbers: Tensor, num_classes: int) -> Tensor:
    """Balanced labels of images by their numbers, 0, 1, ..., K-1, 0, 1, ...: (N,) int64."""
    return numbers % num_classes
