"""The scores of half a set of generated images against half of the real ones.

FID, MIND, FLD, label kept, recall (k = 5) and copies of training images, over all classes and
by group; MIND of single classes as their mean and the worst. They are those of the evaluate
command: FLD of a group is the mean over its classes, recall is of equally many images on both
sides, and real images that are long-tailed themselves are weighed by class. Lower is better but
for label kept and recall. Shapes: N = images, D = features, K = classes.
"""

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from cbdm_scale.data.groups import GROUPS, Group
from cbdm_scale.evaluation.cautions import counts_to_weigh
from cbdm_scale.metrics.intervals import Interval, fld_interval
from cbdm_scale.metrics.memorisation import memorisation
from cbdm_scale.metrics.options import K_NEAREST
from cbdm_scale.metrics.per_class import mean_of_most
from cbdm_scale.metrics.reference import LabelledFeatures, Reference, equal_manifold
from cbdm_scale.metrics.sliced_wasserstein import SlicedTo
from tune.comparison.sets import HALVES, Features

VERSION = 3
"""Goes up when a score is added or changes: what was computed before is then computed again."""

Scores = dict[str, float]


def halves_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the real images (N,) of each half: every second one of each class.

    A class of one image has it in both.
    """
    order = torch.argsort(labels, stable=True)
    rank = torch.empty_like(order)
    alone = torch.zeros(len(labels), dtype=torch.bool)
    for c in labels.unique():
        mine = order[labels[order] == c]
        rank[mine] = torch.arange(len(mine))
        alone[mine] = len(mine) == 1
    first, second = ((rank % HALVES == half) | alone for half in range(HALVES))
    return first.nonzero().flatten(), second.nonzero().flatten()


class Scorer:
    """Half of the real images, and all training images, prepared once."""

    def __init__(
        self,
        real: Features,
        train: Features,
        counts: Sequence[int],
        unseen: Tensor | None = None,
        *,
        weigh: bool = False,
    ):
        """counts (K,) of the training set, which decide the groups.

        unseen (N,) bool: the real images that are no training images; None: all of them.
        weigh: every class of the real images counts alike, however many it has.
        """
        self.real, self.train, self.counts = real, train, counts
        self.unseen = torch.ones(len(real.y), dtype=torch.bool) if unseen is None else unseen
        self.reference = Reference(
            *(real.x, real.y, counts),
            weigh=weigh,
            train=LabelledFeatures(train.x, train.y),
            held_out=self.unseen.nonzero().flatten(),
        )
        self.groups = self.reference.groups
        self._sliced: dict[Group | int | None, SlicedTo] = {}

    def members(self, y: Tensor, group: Group | int | None) -> Tensor:
        """Which labels (N,) are in a group, or of a class; None: all."""
        if isinstance(group, int):
            return y == group
        return torch.tensor([group in (None, g) for g in self.groups])[y]

    def scores(self, fake: Features) -> Scores:
        """Every score; no key for one that cannot be had of so few images."""
        found = self.copies(fake) | self._fld(fake)
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
        theirs = self.reference.of(group)
        if (mine.seen >= 0).all():
            found["kept"] = (mine.seen == mine.y).double().mean().item()
        if min(len(mine.y), len(theirs.y)) >= 2:
            found["fid"] = self.reference.to(group)(mine.x)
        if min(len(mine.y), len(theirs.y)) > K_NEAREST:
            made, refer = LabelledFeatures(mine.x, mine.y), self.reference
            near = equal_manifold(theirs, made, weigh=refer.weigh, seed=refer.seed)
            found["recall"] = near.recall
        mind = self._mind(mine, group)
        return found if mind is None else found | {"mind": mind}

    def _mind(self, fake: Features, group: Group | int | None) -> float | None:
        """MIND of the images of a group or class; None of fewer than two on a side."""
        theirs = self.reference.real.at(self.members(self.real.y, group))
        mine = fake.x[self.members(fake.y, group)]
        if min(len(theirs.y), len(mine)) < 2:
            return None
        if group not in self._sliced:
            weights = None if isinstance(group, int) else self.reference.weights(theirs)
            self._sliced[group] = SlicedTo(theirs.x, weights=weights)
        return self._sliced[group](mine)

    def _fld(self, fake: Features) -> Scores:
        """The mean over the classes of a group, and over all, where half of them have one."""
        known: dict[int, Interval] = {}
        for c in fake.y.unique().tolist():
            with suppress(ValueError):  # too few images
                known[c] = fld_interval(self.reference.likelihood(c), fake.x[fake.y == c], 0)
        found: Scores = {}
        for group in (None, *GROUPS):
            classes = [c for c, g in enumerate(self.groups) if group in (None, g)]
            mean = mean_of_most([known[c] for c in classes if c in known], len(classes))
            if mean:
                found[f"fld_{group}" if group else "fld"] = mean.value
        return found


def scorers(
    real: Features, train: Features, counts: Sequence[int], unseen: Tensor | None = None
) -> tuple[Scorer, Scorer]:
    """One for each half of the real images; ``unseen`` as of ``Scorer``.

    The generated images are equally many of each class. Real ones that are not are weighed.
    """
    sizes = torch.bincount(real.y, minlength=len(counts)).tolist()
    weigh = counts_to_weigh(sizes) is not None
    new = torch.ones(len(real.y), dtype=torch.bool) if unseen is None else unseen
    first, second = (
        Scorer(real.take(rows), train, counts, new[rows], weigh=weigh)
        for rows in halves_of(real.y)
    )
    return first, second


REAL, MOVED = "real images", "real images at the training means"
TRAINING, SHUFFLED = "training images", "labels shuffled"


def references(both: tuple[Scorer, Scorer], num_images: int) -> dict[str, Scores]:
    """What is had without a network, by name, to hold the scores of one against.

    REAL      one half of the real images against the other: the floor
    MOVED     the same, every class moved in feature space to the mean of its training images:
              what is had by knowing how a class varies, and from the training set where it is.
              What lies between this and the floor is the luck of the draw
    TRAINING  the training images in turn: copies
    SHUFFLED  real images with shuffled labels: classes are told by nobody

    Class by class as generated ones, at most ``num_images``; where real images are weighed, a
    class that has fewer has them in turn. The two ways of the halves averaged. Real copies are
    looked for among those that are no training images.
    """
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[Scores]] = {}
    for scorer, other in (both, both[::-1]):
        weigh = scorer.reference.weigh
        drawn = balanced(other.real, num_images, len(scorer.counts), in_turn=weigh)
        mixed = drawn.y[torch.randperm(len(drawn.y), generator=generator)]
        scores = {
            REAL: scorer.scores(drawn) | scorer.copies(other.real.take(other.unseen)),
            MOVED: scorer.scores(moved_to(scorer.train, drawn, other.real)),
            TRAINING: scorer.scores(in_turn(scorer.train, drawn.y)),
            SHUFFLED: scorer.scores(Features(drawn.x, mixed, drawn.seen)),
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


def balanced(
    real: Features, num_images: int, num_classes: int, in_turn: bool = False
) -> Features:
    """The first real images of each class, equally many, at most ``num_images`` in all.

    in_turn: as many of a class that has fewer, its own in turn.
    """
    counts = torch.bincount(real.y, minlength=num_classes)
    each = num_images // num_classes
    if not in_turn:
        each = min(each, int(counts[counts > 0].min()))
    every = [(real.y == c).nonzero().flatten() for c in range(num_classes)]
    rows = [mine[torch.arange(each) % len(mine)] for mine in every if len(mine)]
    return real.take(torch.cat(rows))


def average(several: Sequence[Scores]) -> Scores:
    """The mean of each score that all have."""
    names = [n for n in several[0] if all(n in one for one in several)]
    return {n: sum(one[n] for one in several) / len(several) for n in names}
