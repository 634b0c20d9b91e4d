"""The scores of half a set of generated images against half of the real ones.

FID, label kept, recall (k = 5) and copies of training images, over all classes and by group.
Lower is better for FID and copies, higher for the others. Shapes: N = images, D = features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cbdm_scale.data.groups import GROUPS, Group, class_groups
from cbdm_scale.metrics.fid import Reference
from cbdm_scale.metrics.memorisation import memorisation
from cbdm_scale.metrics.options import K_NEAREST
from cbdm_scale.metrics.precision_recall import manifold_scores
from tune.comparison.sets import HALVES, Features

VERSION = 1
"""Goes up when a score is added or changes: what was computed before is then computed again."""
METRICS = {"fid": "FID", "kept": "label kept", "recall": "recall", "copies": "copies"}
"""Of all classes; with _many, _medium, _few of a group."""
HIGHER = ("kept", "recall")
"""Of these more is better."""

Scores = dict[str, float]


def halves_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Places (N / 2,) of the real images of each half: every second one of each class."""
    order = torch.argsort(labels, stable=True)
    rank = torch.empty_like(order)
    for c in labels.unique():
        mine = order[labels[order] == c]
        rank[mine] = torch.arange(len(mine))
    return tuple((rank % HALVES == half).nonzero().flatten() for half in range(HALVES))  # type: ignore[return-value]


class Judge:
    """Half of the real images, and all training images, prepared once."""

    def __init__(self, real: Features, train: Features, counts: Sequence[int]):
        """counts (K,) of the training set, which decide the groups."""
        self.real, self.train, self.counts = real, train, counts
        self.groups = class_groups(counts)
        self.reference = Reference(real.x, real.y, counts)

    def members(self, y: Tensor, group: Group | None) -> Tensor:
        """Which labels (N,) are in a group; None: all."""
        return torch.tensor([group in (None, g) for g in self.groups])[y]

    def fid(self, fake: Features, group: Group | None) -> float:
        """FID of the images of a group."""
        return self.reference.to(group)(fake.x[self.members(fake.y, group)])

    def scores(self, fake: Features) -> Scores:
        """Every score; no key for one that cannot be had of so few images."""
        found: Scores = {}
        copied = memorisation(self.train.x, self.train.y, fake.x, fake.y, self.counts)
        copies = {one.group: one.copies for one in copied.groups}
        for group in (None, *GROUPS):
            end = f"_{group}" if group else ""
            mine = fake.take(self.members(fake.y, group))
            theirs = self.real.take(self.members(self.real.y, group))
            if min(len(mine.y), len(theirs.y)) >= 2:
                found[f"fid{end}"] = self.fid(fake, group)
            if len(mine.y) and (mine.seen >= 0).all():
                found[f"kept{end}"] = (mine.seen == mine.y).double().mean().item()
            if min(len(mine.y), len(theirs.y)) > K_NEAREST:
                found[f"recall{end}"] = manifold_scores(theirs.x, mine.x).recall
            copy = copies.get(group)
            if copy is not None:
                found[f"copies{end}"] = copy
        return found


def judges(real: Features, train: Features, counts: Sequence[int]) -> tuple[Judge, Judge]:
    """One for each half of the real images."""
    first, second = (Judge(real.take(rows), train, counts) for rows in halves_of(real.y))
    return first, second


def floor_and_chance(both: tuple[Judge, Judge], num_images: int) -> tuple[Scores, Scores]:
    """What real images get, and what they get under labels that are shuffled.

    One half of the real images against the other, class by class in turn as generated ones, at
    most ``num_images``; the two ways averaged. With shuffled labels images are real and classes
    are told by nobody.
    """
    generator = torch.Generator().manual_seed(0)
    real, shuffled = [], []
    for judge, other in (both, both[::-1]):
        drawn = balanced(other.real, num_images, len(judge.counts))
        real.append(judge.scores(drawn))
        mixed = drawn.y[torch.randperm(len(drawn.y), generator=generator)]
        shuffled.append(judge.scores(Features(drawn.x, mixed, drawn.seen)))
    return average(real), average(shuffled)


def balanced(real: Features, num_images: int, num_classes: int) -> Features:
    """The first real images of each class, equally many, at most ``num_images`` in all."""
    counts = torch.bincount(real.y, minlength=num_classes)
    each = min(num_images // num_classes, int(counts[counts > 0].min()))
    rows = [(real.y == c).nonzero().flatten()[:each] for c in range(num_classes)]
    return real.take(torch.cat(rows))


def average(several: Sequence[Scores]) -> Scores:
    """The mean of each score that all have."""
    names = [n for n in several[0] if all(n in one for one in several)]
    return {n: sum(one[n] for one in several) / len(several) for n in names}
