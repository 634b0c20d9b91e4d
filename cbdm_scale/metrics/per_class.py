"""Scores of every class, and pooled over the many, medium and few classes.

KID comes first: with few images it is noisy but not biased. FID beside it grows as images
get fewer, so that all classes are compared at one number of images, and a class with less
than 50 on a side has none. Pooled FID uses all images of the group, as during training. The
sliced Wasserstein distance and FLD mean something with a few dozen images; FLD of a group is
the mean over its classes.

Shapes: N = real images, M = generated images, D = features, K = classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from cbdm_scale.data.groups import GROUPS, Group, class_groups
from cbdm_scale.metrics.fid import FrechetTo
from cbdm_scale.metrics.intervals import (
    Interval,
    fid_interval,
    fidelity_interval,
    fld_interval,
    kid_interval,
    mean_interval,
    sliced_interval,
)
from cbdm_scale.metrics.options import K_NEAREST
from cbdm_scale.metrics.reference import MOST, LabelledFeatures, Reference, equal_manifold
from cbdm_scale.metrics.sliced_wasserstein import SlicedTo

MIN_FID_IMAGES = 50
KID_DRAWS = 200
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

    sliced_wasserstein: Interval | None = None
    """None with fewer than 2 images on a side."""

    fld: Interval | None = None
    fld_missing: str | None = None
    """Why there is no FLD."""

    recall: float | None = None
    """Of the pooled rows, of equally many images on both sides; None with too few of them."""

    recall_images: int | None = None
    """How many these are."""


CLASS_MEASURES = "kid", "fid", "sliced_wasserstein", "fld", "fidelity"
HIGHER_IS_BETTER = ("fidelity",)


@dataclass(frozen=True)
class ClassTable:
    """A row a class in label order, and the pooled rows: all, many, medium, few."""

    classes: tuple[ClassScore, ...]
    pooled: tuple[ClassScore, ...]

    def macro(self, name: str) -> float | None:
        """The mean of a number over the classes that have it; None where none has."""
        found = [one.value for row in self.classes if (one := getattr(row, name))]
        return sum(found) / len(found) if found else None

    def worst(self, name: str) -> ClassScore | None:
        """The class with the worst of a number; None where none has it."""
        sign = -1 if name in HIGHER_IS_BETTER else 1
        known = [row for row in self.classes if getattr(row, name)]
        return max(known, key=lambda row: sign * getattr(row, name).value, default=None)


@dataclass(frozen=True)
class Whole:
    """Scores of all images, where they are known already."""

    fid: Interval | None
    kid: Interval | None
    recall: float | None = None
    sliced_wasserstein: Interval | None = None


def class_table(
    real: LabelledFeatures,
    fake: LabelledFeatures,
    counts: Sequence[int],
    *,
    seed: int = 0,
    reference: Reference | None = None,
    whole: Whole | None = None,
    intervals: bool = True,
    step: Callable[[], None] = lambda: None,
) -> ClassTable:
    """Scores by class and group; counts (K,) are those of the training set.

    KID and the sliced distance, which need no equal numbers, are of at most 10,000 random
    images a side. reference: of ``real``, where several sets share it. whole: what is known of
    all images. intervals: False for the numbers alone. step: called after each of K + 4 rows.
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
    rows = _Rows(real, fake, counts, seed, refer, intervals, step)
    classes = tuple(rows.row([c], label=c, group=g, equal=equal) for c, g in enumerate(groups))
    members = {chosen: [c for c, g in enumerate(groups) if g == chosen] for chosen in GROUPS}
    pooled = [rows.row(list(range(len(counts))), group=None, known=whole)]
    pooled += [rows.row(some, group=group) for group, some in members.items()]
    return ClassTable(classes, tuple(_with_fld(row, classes) for row in pooled))


def mean_of_most(known: Sequence[Interval], num_classes: int) -> Interval | None:
    """The mean over the classes that have a number; None where fewer than half have one."""
    return mean_interval(known) if known and 2 * len(known) >= num_classes else None


def _with_fld(pooled: ClassScore, classes: Sequence[ClassScore]) -> ClassScore:
    """A pooled row with the mean FLD of its classes, where half of them have one."""
    mine = [row for row in classes if pooled.group in (None, row.group)]
    if mean := mean_of_most([row.fld for row in mine if row.fld], len(mine)):
        return replace(pooled, fld=mean)
    reasons = [row.fld_missing for row in mine if row.fld_missing]
    return replace(pooled, fld_missing=reasons[0] if reasons else "no class is in the group")


@dataclass(frozen=True)
class _Rows:
    """What all rows have in common."""

    real: LabelledFeatures
    fake: LabelledFeatures
    counts: Sequence[int]
    seed: int
    reference: Reference
    intervals: bool
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
        missing = distance = images = kid = sliced = None
        if fewest < MIN_FID_IMAGES:
            missing = (
                f"{len(real.x)} real and {len(fake.x)} generated images: FID needs at least "
                f"{MIN_FID_IMAGES} on each side to mean something"
            )
        else:
            a, b = real.some(equal, self.seed), fake.some(equal, self.seed)
            images = len(a.x), len(b.x)
            distance = known.fid if known else None
            if distance is None:
                to = self.reference.to(group) if label is None else FrechetTo(a.x)
                distance = fid_interval(to, b.x, self._parts(group), self.seed)
        if fewest >= 2:
            a, b = real.some(MOST, self.seed), fake.some(MOST, self.seed)
            kid = (known.kid if known else None) or self._kid(a, b, label)
            sliced = known.sliced_wasserstein if known else None
            if sliced is None:
                along = self.reference.sliced(group) if label is None else SlicedTo(a.x)
                sliced = sliced_interval(along, b.x, self._parts(group), self.seed)
        fidelity = None
        if fake.hits is not None and len(fake.x):
            fidelity = fidelity_interval(fake.hits, fake.y, seed=self.seed)
        fld, fld_missing = (None, None) if label is None else self._fld(label, fake)
        recall = known.recall if known else None
        if recall is None and label is None:
            recall = self._recall(real, fake)
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
            sliced_wasserstein=sliced,
            fld=fld,
            fld_missing=fld_missing,
            recall=recall,
            recall_images=None if recall is None else fewest,
        )

    def _parts(self, group: Group | None) -> int:
        """Groups of images that an interval leaves out in turn; 0 without intervals."""
        return (NUM_GROUPS if group else NUM_GROUPS_OF_ALL) if self.intervals else 0

    def _kid(
        self, real: LabelledFeatures, fake: LabelledFeatures, label: int | None
    ) -> Interval:
        weights = self.reference.weights(real) if label is None else None
        draws = KID_DRAWS if self.intervals else 0
        return kid_interval(real.x, fake.x, draws, self.seed, weights)

    def _fld(self, label: int, fake: LabelledFeatures) -> tuple[Interval | None, str | None]:
        """FLD of a class, or why there is none."""
        try:
            to = self.reference.likelihood(label)
            return fld_interval(to, fake.x, self._parts("few")), None
        except ValueError as error:
            return None, str(error)

    def _recall(self, real: LabelledFeatures, fake: LabelledFeatures) -> float | None:
        if min(len(real.x), len(fake.x)) <= K_NEAREST:
            return None
        weigh = self.reference.weigh
        return equal_manifold(real, fake, weigh=weigh, seed=self.seed).recall
