"""Class frequencies: label distributions made from them, and groups of classes.

Shapes: K = number of classes.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Group = Literal["many", "medium", "few"]
GROUPS: tuple[Group, ...] = get_args(Group)


def class_probs(counts: Tensor, power: float) -> Tensor:
    """Probabilities proportional to ``counts ** power``, shape (K,), float64.

    ===== =================== ==========================
    power label set Y (S 4.2) resampling of images (S 4.1)
    ===== =================== ==========================
    1     Y^train             none
    1/2   Y^sqr               RS-SQRT
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


def class_groups(counts: Sequence[int]) -> tuple[Group, ...]:
    """The group of every class: many > 100 training images, medium 20-100, few < 20.

    Where a group would hold fewer than three classes, thirds of the classes by count instead
    (ten digits: 3 / 4 / 3), the larger classes first and ties in label order.
    """
    groups: tuple[Group, ...] = tuple(
        "many" if n > 100 else "medium" if n >= 20 else "few" for n in counts
    )
    if all(groups.count(g) >= 3 for g in GROUPS):
        return groups
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    third = len(counts) // 3
    by_rank: dict[int, Group] = {}
    for rank, c in enumerate(order):
        head, tail = rank < third, rank >= len(counts) - third
        by_rank[c] = "many" if head else "few" if tail else "medium"
    return tuple(by_rank[c] for c in range(len(counts)))


def class_cyclic(num_images: int, num_classes: int) -> Tensor:
    """Exactly balanced labels 0, 1, ..., K-1, 0, 1, ...: (num_images,) int64."""
    return torch.arange(num_images) % num_classes
