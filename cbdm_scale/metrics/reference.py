"""The real side of an evaluation: what every set is compared with, prepared once.

Where the real images are more of some classes than of others and the generated ones are not,
they are weighed by class, as a mixture in which every class counts alike.

Shapes: N = images, D = features, K = classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from cbdm_scale.data.groups import Group, class_groups
from cbdm_scale.metrics.fid import FrechetTo
from cbdm_scale.metrics.fld import LikelihoodOf, Standard, standard_of
from cbdm_scale.metrics.precision_recall import ManifoldScores, manifold_scores
from cbdm_scale.metrics.sliced_wasserstein import SlicedTo

MOST = 10_000
"""Images of a side, at most, that KID and the sliced distance are of: of more, random ones."""

K = TypeVar("K")
T = TypeVar("T")


def class_scale(sizes: Tensor) -> Tensor:
    """a, with sum w_i = sum w_i^2 for w_i = a / n_c: K over the sum of 1 / n_c, (K,) -> ()."""
    present = sizes[sizes > 0].double()
    return len(present) / (1 / present).sum()


def class_weights(labels: Tensor) -> Tensor:
    """The weight of each image (N,) in a mixture of its classes in equal parts, float64, CPU.

    Their sum is that of their squares: as many images of one class as that mean as much
    (Kish's effective number). All 1 where the classes have equally many.
    """
    y = labels.cpu()
    sizes = torch.bincount(y)
    return (class_scale(sizes) / sizes)[y]


def some_rows(n: int, most: int, seed: int) -> Tensor | None:
    """At most so many rows of n, drawn by the seed; None for all of them in order."""
    if n <= most:
        return None
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most]


@dataclass(frozen=True)
class LabelledFeatures:
    """Features (N, D) of images with their labels (N,)."""

    x: Tensor
    y: Tensor
    hits: Tensor | None = None
    """(N,) bool: the classifier sees the label (``features.label_hits``)."""

    def __post_init__(self) -> None:
        for part in (self.y, self.hits):
            if part is not None and part.shape != (len(self.x),):
                raise ValueError(f"{len(self.x)} images but labels or hits {tuple(part.shape)}")

    def of(self, classes: Tensor) -> "LabelledFeatures":
        """Only the images of some classes."""
        return self.at(torch.isin(self.y, classes.to(self.y.device)))

    def at(self, rows: Tensor) -> "LabelledFeatures":
        """Only some rows: numbers, or (N,) bool."""
        hits = None if self.hits is None else self.hits[rows.to(self.hits.device)]
        return LabelledFeatures(
            self.x[rows.to(self.x.device)], self.y[rows.to(self.y.device)], hits
        )

    def some(self, most: int | None, seed: int) -> "LabelledFeatures":
        """At most so many images, drawn by the seed; all of them in order if they are fewer."""
        rows = None if most is None else some_rows(len(self.x), most, seed)
        return self if rows is None else self.at(rows)


def equal_manifold(
    real: LabelledFeatures, fake: LabelledFeatures, *, weigh: bool, seed: int
) -> ManifoldScores:
    """Precision, recall, density and coverage (k = 5) of equally many images on both sides.

    Of the larger side a random part. weigh: every class of the real images counts alike.
    ValueError with too few images on a side.
    """
    both = min(len(real.x), len(fake.x))
    a, b = real.some(both, seed), fake.some(both, seed)
    return manifold_scores(a.x, b.x, weights=class_weights(a.y) if weigh else None)


class Reference:
    """All real images and those of a group, with the distances to them.

    What is of single classes is not kept, but for their likelihoods: together it would be
    larger than the features.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        counts: Sequence[int],
        *,
        weigh: bool = False,
        train: LabelledFeatures | None = None,
        held_out: Tensor | None = None,
        seed: int = 0,
    ):
        """x (N, D), y (N,) labels, counts (K,) of the training set, which decide the groups.

        weigh: every class counts alike. train: the training images, and held_out (R,): the rows
        of x that are none of them; FLD needs both.
        """
        self.real, self.groups, self.weigh = LabelledFeatures(x, y), class_groups(counts), weigh
        self.train, self.held_out, self.seed = train, held_out, seed
        self._frechet: dict[Group | None, FrechetTo] = {}
        self._sliced: dict[Group | None, SlicedTo] = {}
        self._likelihoods: dict[int, LikelihoodOf] = {}
        self._standard: Standard | None = None

    @property
    def x(self) -> Tensor:
        """Features of all real images (N, D)."""
        return self.real.x

    def of(self, group: Group | None) -> LabelledFeatures:
        """The real images of a group; None: all of them."""
        if group is None:
            return self.real
        return self.real.of(torch.tensor([c for c, g in enumerate(self.groups) if g == group]))

    def weights(self, side: LabelledFeatures) -> Tensor | None:
        """Those of some of the real images (n,); None where each counts as one."""
        return class_weights(side.y) if self.weigh else None

    def to(self, group: Group | None) -> FrechetTo:
        """The Frechet distance to the real images of a group; None: to all of them."""

        def prepare() -> FrechetTo:
            side = self.of(group)
            return FrechetTo(side.x, self.weights(side))

        return _known(self._frechet, group, prepare)

    def sliced(self, group: Group | None) -> SlicedTo:
        """The sliced Wasserstein distance to them."""

        def prepare() -> SlicedTo:
            side = self.of(group).some(MOST, self.seed)
            return SlicedTo(side.x, weights=self.weights(side))

        return _known(self._sliced, group, prepare)

    def likelihood(self, label: int) -> LikelihoodOf:
        """FLD against a class; ValueError where it has too few images for it."""

        def prepare() -> LikelihoodOf:
            if self.train is None or self.held_out is None:
                raise ValueError("FLD needs the training images, which were not asked for")
            held_out = self.real.at(self.held_out)
            one = torch.tensor([label])
            sides = self.train.of(one).x, held_out.of(one).x
            if len(held_out.x) > 1:
                self._standard = self._standard or standard_of(held_out.x)
            return LikelihoodOf(*sides, standard=self._standard, seed=self.seed)

        return _known(self._likelihoods, label, prepare)


def _known(kept: dict[K, T], key: K, prepare: Callable[[], T]) -> T:
    """What is kept under a key, prepared where it is not there yet."""
    if key not in kept:
        kept[key] = prepare()
    return kept[key]
