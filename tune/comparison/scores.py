"""The scores of half a set of generated images against half of the real ones.

FID, MIND, FLD, label kept, recall (k = 5) and copies of training images, over all classes and
by group; MIND of single classes as their mean and the worst. Lower is better but for label kept
and recall. Shapes: N = images, D = features, K = classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cbdm_scale.data.groups import GROUPS, Group, class_groups
from cbdm_scale.metrics.fld import MIN_HELD_OUT, LikelihoodOf, standard_of
from cbdm_scale.metrics.memorisation import memorisation
from cbdm_scale.metrics.options import K_NEAREST
from cbdm_scale.metrics.precision_recall import manifold_scores
from cbdm_scale.metrics.reference import Reference
from cbdm_scale.metrics.sliced_wasserstein import SlicedTo
from tune.comparison.sets import HALVES, Features

VERSION = 2
"""Goes up when a score is added or changes: what was computed before is then computed again."""

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

    def __init__(
        self,
        real: Features,
        train: Features,
        counts: Sequence[int],
        unseen: Tensor | None = None,
    ):
        """counts (K,) of the training set, which decide the groups.

        unseen (N,) bool: the real images that are no training images; None: all of them.
        """
        self.real, self.train, self.counts = real, train, counts
        self.unseen = torch.ones(len(real.y), dtype=torch.bool) if unseen is None else unseen
        self.groups = class_groups(counts)
        self.reference = Reference(real.x, real.y, counts)
        self.standard = standard_of(real.x)
        self._sliced: dict[Group | int | None, SlicedTo] = {}
        self._likelihood: dict[Group | None, LikelihoodOf | None] = {}

    def members(self, y: Tensor, group: Group | int | None) -> Tensor:
        """Which labels (N,) are in a group, or of a class; None: all."""
        if isinstance(group, int):
            return y == group
        return torch.tensor([group in (None, g) for g in self.groups])[y]

    def scores(self, fake: Features) -> Scores:
        """Every score; no key for one that cannot be had of so few images."""
        found = self.copies(fake)
        for group in (None, *GROUPS):
            mine = fake.take(self.members(fake.y, group))
            if len(mine.y):
                end = f"_{group}" if group else ""
                found |= {f"{name}{end}": v for name, v in self._of_group(mine, group).items()}
        classes = [self._mind(fake, c) for c in range(len(self.counts))]
        if known := [value for value in classes if value is not None]:
            found["mind_mean"] = sum(known) / len(known)
            found["mind_worst"] = max(known)
        return found

    def copies(self, fake: Features) -> Scores:
        """Shares of copies of training images."""
        copied = memorisation(self.train.x, self.train.y, fake.x, fake.y, self.counts)
        return {
            f"copies_{one.group}" if one.group else "copies": one.copies
            for one in copied.groups
            if one.copies is not None
        }

    def _of_group(self, mine: Features, group: Group | None) -> Scores:
        """Of the generated images of a group, or of all."""
        found: Scores = {}
        theirs = self.real.take(self.members(self.real.y, group))
        if (mine.seen >= 0).all():
            found["kept"] = (mine.seen == mine.y).double().mean().item()
        if min(len(mine.y), len(theirs.y)) >= 2:
            found["fid"] = self.reference.to(group)(mine.x)
        if min(len(mine.y), len(theirs.y)) > K_NEAREST:
            found["recall"] = manifold_scores(theirs.x, mine.x).recall
        likelihood = self._likelihood_of(group)
        if likelihood and len(mine.y) >= 2:
            found["fld"] = likelihood(mine.x)[0]
        mind = self._mind(mine, group)
        return found if mind is None else found | {"mind": mind}

    def _mind(self, fake: Features, group: Group | int | None) -> float | None:
        """MIND of the images of a group or class; None of fewer than two on a side."""
        theirs = self.real.x[self.members(self.real.y, group)]
        mine = fake.x[self.members(fake.y, group)]
        if min(len(theirs), len(mine)) < 2:
            return None
        if group not in self._sliced:
            self._sliced[group] = SlicedTo(theirs)
        return self._sliced[group](mine)

    def _likelihood_of(self, group: Group | None) -> LikelihoodOf | None:
        """FLD to a group's images; None where too few of them are no training images."""
        if group not in self._likelihood:
            train = self.train.x[self.members(self.train.y, group)]
            held_out = self.real.x[self.members(self.real.y, group) & self.unseen]
            enough = len(train) >= 1 and len(held_out) >= MIN_HELD_OUT
            self._likelihood[group] = (
                LikelihoodOf(train, held_out, self.standard) if enough else None
            )
        return self._likelihood[group]


def judges(
    real: Features, train: Features, counts: Sequence[int], unseen: Tensor | None = None
) -> tuple[Judge, Judge]:
    """One for each half of the real images; ``unseen`` as of ``Judge``."""
    new = torch.ones(len(real.y), dtype=torch.bool) if unseen is None else unseen
    first, second = (
        Judge(real.take(rows), train, counts, new[rows]) for rows in halves_of(real.y)
    )
    return first, second


REAL, MOVED = "real images", "real images at the training means"
TRAINING, SHUFFLED = "training images", "labels shuffled"


def references(both: tuple[Judge, Judge], num_images: int) -> dict[str, Scores]:
    """What is had without a network, by name, to hold the scores of one against.

    REAL      one half of the real images against the other: the floor
    MOVED     the same, every class moved in feature space to the mean of its training images:
              what is had by knowing how a class varies, and from the training set where it is.
              What lies between this and the floor is the luck of the draw
    TRAINING  the training images in turn: copies
    SHUFFLED  real images with shuffled labels: classes are told by nobody

    Class by class in turn as generated ones, at most ``num_images``; the two ways of the halves
    averaged. Real copies are looked for among those that are no training images.
    """
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[Scores]] = {}
    for judge, other in (both, both[::-1]):
        drawn = balanced(other.real, num_images, len(judge.counts))
        mixed = drawn.y[torch.randperm(len(drawn.y), generator=generator)]
        scores = {
            REAL: judge.scores(drawn) | judge.copies(other.real.take(other.unseen)),
            MOVED: judge.scores(moved_to(judge.train, drawn, other.real)),
            TRAINING: judge.scores(in_turn(judge.train, drawn.y)),
            SHUFFLED: judge.scores(Features(drawn.x, mixed, drawn.seen)),
        }
        for name, one in scores.items():
            found.setdefault(name, []).append(one)
    return {name: average(several) for name, several in found.items()}


def moved_to(train: Features, drawn: Features, real: Features) -> Features:
    """``drawn`` less the mean of ``real``, plus that of ``train``, class by class.

    What the classifier would see in them is not known.
    """
    x = drawn.x.clone()
    for c in drawn.y.unique():
        x[drawn.y == c] += train.x[train.y == c].mean(0) - real.x[real.y == c].mean(0)
    return Features(x, drawn.y, torch.full_like(drawn.y, -1))


def in_turn(train: Features, labels: Tensor) -> Features:
    """A training image of each label, (N,), those of a class in turn."""
    rows = torch.empty_like(labels)
    for c in labels.unique():
        mine = (train.y == c).nonzero().flatten()
        places = (labels == c).nonzero().flatten()
        rows[places] = mine[torch.arange(len(places)) % len(mine)]
    return train.take(rows)


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
