"""Memorisation: are generated images new, or training images over again?

Each generated image is compared with its nearest training image. The yardstick is how far
that training image lies from its own nearest neighbour in the training set: the ratio of the
two distances is about 1 for a fresh image and 0 for a copy. Below 1/3 an image counts as a
copy, after Yoon et al. (2023), who put the second nearest training image in the place of
our yardstick. By class group, because the tail is memorised first.

Copies within the training set would make the yardstick 0; below a hundredth of the group's
median, the median takes its place. In few dimensions fresh images come closer by chance:
compare with the same share for real images that were not trained on.

Shapes: N = generated images, M = training images, D = features, K = classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.data.groups import GROUPS, Group, class_groups
from cbdm_scale.metrics.neighbours import nearest

COPY = 1 / 3
SAME = 0.01


@dataclass(frozen=True)
class GroupMemorisation:
    """Generated images whose label is in one group, or in any."""

    group: Group | None
    num_images: int

    median_ratio: float | None
    """About 1 for fresh images; None without images."""

    copies: float | None
    """Share of images with a ratio below 1/3."""


@dataclass(frozen=True)
class Memorisation:
    """Every generated image beside its nearest training image."""

    nearest: Tensor
    """(N,) position of the nearest training image."""

    distance: Tensor
    """(N,) to it, float64."""

    ratio: Tensor
    """(N,) that distance over the training image's own to its neighbour."""

    groups: tuple[GroupMemorisation, ...]
    """All, many, medium, few."""


def memorisation(
    train: Tensor,
    train_labels: Tensor,
    fake: Tensor,
    fake_labels: Tensor,
    counts: Sequence[int],
) -> Memorisation:
    """Features train (M, D), fake (N, D), labels (M,), (N,); counts (K,) of the training set.

    The nearest training image may be of any class: a copy under a wrong label is one too.
    A label of -1, not known, is in no group but in all.
    """
    if len(train) < 2:
        raise ValueError(f"memorisation needs at least 2 training images, got {len(train)}")
    group_of = class_groups(counts)
    own = nearest(train, k=1).distance[:, 0].cpu()  # (M,)
    for group in GROUPS:
        members = _members(group_of, group, train_labels)
        if members.any():
            median = own[members].median()
            own[members & (own < SAME * median)] = median
    found = nearest(fake, train, k=1)
    index, distance = found.index[:, 0].cpu(), found.distance[:, 0].cpu()
    if (own == 0).any():  # more than half of a group are copies of each other
        own[own == 0] = own[own > 0].min() if (own > 0).any() else 1.0
    ratio = distance / own[index]
    rows = []
    for chosen in (None, *GROUPS):
        mine = ratio[_members(group_of, chosen, fake_labels)]
        some = len(mine) > 0
        rows.append(
            GroupMemorisation(
                group=chosen,
                num_images=len(mine),
                median_ratio=float(mine.median()) if some else None,
                copies=float((mine < COPY).double().mean()) if some else None,
            )
        )
    return Memorisation(index, distance, ratio, tuple(rows))


def _members(group_of: tuple[Group, ...], group: Group | None, labels: Tensor) -> Tensor:
    """Which labels (N,) belong to a group; None: all."""
    inside = torch.tensor([group in (None, g) for g in group_of])
    y = labels.cpu()
    return inside[y.clamp_min(0)] & ((y >= 0) | (group is None))
