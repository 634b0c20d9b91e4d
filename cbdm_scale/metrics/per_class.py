"""Scores of every class, and pooled over the many, medium and few classes.

KID comes first: with few images it is noisy but not biased. FID beside it grows as images
get fewer, so that all classes are compared at one number of images, and a class with less
than 50 on a side has none. Pooled FID uses all images of the group, as during training.

Shapes: N = real images, M = generated images, D = features, K = classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.data.groups import GROUPS, Group, class_groups
from cbdm_scale.metrics.fid import FrechetTo, Reference
from cbdm_scale.metrics.intervals import (
    Interval,
    fid_interval,
    fidelity_interval,
    kid_interval,
)

MIN_FID_IMAGES = 50
NUM_GROUPS, NUM_GROUPS_OF_ALL = 10, 20
"""The FID interval of a row leaves out so many parts of the images in turn (intervals.py). Each
costs a Frechet distance, and there are many rows."""


@dataclass(frozen=True)
class ClassScore:
    """One class, or several pooled."""

    label: int | None
    """The class; None for a pooled row."""

    group: Group | None
    """The group of the class or of the pooled classes; None for all classes."""

    num_train: int
    """Images in the training set."""

    num_real: int
    num_fake: int

    kid: Interval | None
    """None with fewer than 2 images on a side."""

    fid: Interval | None
    fid_images: tuple[int, int] | None
    """Real and generated images that the FID is of."""

    fid_missing: str | None
    """Why there is no FID."""

    fidelity: Interval | None
    """None where no classifier judged the images."""


@dataclass(frozen=True)
class ClassTable:
    """A row a class in label order, and the pooled rows: all, many, medium, few."""

    classes: tuple[ClassScore, ...]
    pooled: tuple[ClassScore, ...]


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
        keep = torch.isin(self.y, classes.to(self.y.device))
        hits = None if self.hits is None else self.hits[keep.to(self.hits.device)]
        return LabelledFeatures(self.x[keep.to(self.x.device)], self.y[keep], hits)


@dataclass(frozen=True)
class Whole:
    """Scores of all images, where they are known already."""

    fid: Interval | None
    kid: Interval | None


def class_table(
    real: LabelledFeatures,
    fake: LabelledFeatures,
    counts: Sequence[int],
    *,
    kid_images: int = 10_000,
    seed: int = 0,
    reference: Reference | None = None,
    whole: Whole | None = None,
    step: Callable[[], None] = lambda: None,
) -> ClassTable:
    """Scores by class and group; counts (K,) are those of the training set.

    kid_images: KID, which needs no equal numbers, is of at most so many random images a side.
    reference: of ``real``, where several sets share it. whole: what is known of all images.
    step: called after each of the K + 4 rows.
    """
    groups = class_groups(counts)
    refer = reference or Reference(real.x, real.y, counts)
    for side, features in (("real", real), ("generated", fake)):
        y = features.y
        if not len(y) or not 0 <= int(y.min()) <= int(y.max()) < len(counts):
            raise ValueError(f"{side} labels must be in 0..{len(counts) - 1}, one or more")
    sizes = torch.stack(
        [torch.bincount(f.y.cpu(), minlength=len(counts)) for f in (real, fake)]
    )
    enough = sizes.amin(0)[sizes.amin(0) >= MIN_FID_IMAGES]  # of the classes that have an FID
    equal = int(enough.min()) if len(enough) else MIN_FID_IMAGES
    rows = _Rows(real, fake, counts, kid_images, seed, refer, step)
    members = {chosen: [c for c, g in enumerate(groups) if g == chosen] for chosen in GROUPS}
    whole_set = list(range(len(counts)))
    return ClassTable(
        tuple(rows.row([c], label=c, group=g, equal=equal) for c, g in enumerate(groups)),
        (
            rows.row(whole_set, group=None, known=whole),
            *(rows.row(classes, group=group) for group, classes in members.items()),
        ),
    )


@dataclass(frozen=True)
class _Rows:
    """What all rows have in common."""

    real: LabelledFeatures
    fake: LabelledFeatures
    counts: Sequence[int]
    kid_images: int
    seed: int
    reference: Reference
    step: Callable[[], None]

    def row(
        self,
        classes: list[int],
        *,
        group: Group | None,
        label: int | None = None,
        equal: int | None = None,
        known: Whole | None = None,
    ) -> ClassScore:
        """The scores of some classes together; ``equal``: FID of so many images a side."""
        only = torch.tensor(classes)
        real, fake = self.real.of(only), self.fake.of(only)
        fewest = min(len(real.x), len(fake.x))
        missing = distance = images = None
        if fewest < MIN_FID_IMAGES:
            missing = (
                f"{len(real.x)} real and {len(fake.x)} generated images: FID needs at least "
                f"{MIN_FID_IMAGES} on each side to mean something"
            )
        else:
            a, b = self._some(real.x, equal), self._some(fake.x, equal)
            distance, images = known.fid if known else None, (len(a), len(b))
            if distance is None:
                to = self.reference.to(group) if label is None else FrechetTo(a)
                parts = NUM_GROUPS if group else NUM_GROUPS_OF_ALL
                distance = fid_interval(to, b, parts, self.seed)
        kid = known.kid if known else None
        if kid is None and fewest >= 2:
            a, b = self._some(real.x, self.kid_images), self._some(fake.x, self.kid_images)
            kid = kid_interval(a, b, seed=self.seed)
        fidelity = None
        if fake.hits is not None and len(fake.x):
            fidelity = fidelity_interval(fake.hits, fake.y, seed=self.seed)
        self.step()
        return ClassScore(
            label=label,
            group=group,
            num_train=sum(self.counts[c] for c in classes),
            num_real=len(real.x),
            num_fake=len(fake.x),
            kid=kid,
            fid=distance,
            fid_images=images,
            fid_missing=missing,
            fidelity=fidelity,
        )

    def _some(self, x: Tensor, most: int | None) -> Tensor:
        """At most so many images, drawn by the seed; all of them in order if they are fewer."""
        if most is None or len(x) <= most:
            return x
        rng = torch.Generator().manual_seed(self.seed)
        return x[torch.randperm(len(x), generator=rng)[:most].to(x.device)]
