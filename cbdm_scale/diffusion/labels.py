"""Label distributions Y, made from class frequencies.

Shapes: K = number of classes.
"""

import torch
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
        raise ValueError(f"every class needs at least one image; these have none: {empty}")
    probs = counts.double() ** power
    return probs / probs.sum()


def draw_labels(probs: Tensor, u: Tensor) -> Tensor:
    """Labels by inverse transform: probs (K,), u (N,) in [0, 1) -> (N,) int64."""
    cdf = torch.cumsum(probs.double(), 0)
    return torch.searchsorted(cdf, u.double() * cdf[-1], right=True).clamp_max(len(probs) - 1)


def class_cyclic(numbers: Tensor, num_classes: int) -> Tensor:
    """Balanced labels of images by their numbers, 0, 1, ..., K-1, 0, 1, ...: (N,) int64."""
    return numbers % num_classes
