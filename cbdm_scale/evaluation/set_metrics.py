"""All numbers of a set of generated images, from features; what cannot be had says why.

Shapes: N = real images, M = generated images, T = training images, D = features, K = classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from cbdm_scale.data.groups import GROUPS, Group
from cbdm_scale.data.guidance_strength import Strength
from cbdm_scale.evaluation.examples import class_examples
from cbdm_scale.evaluation.results import Missing, SetResult
from cbdm_scale.metrics.extract import FeatureSet
from cbdm_scale.metrics.features import label_hits
from cbdm_scale.metrics.groups import GroupScores, fid_by_group
from cbdm_scale.metrics.inception_score import inception_score_of_logits
from cbdm_scale.metrics.intervals import (
    Interval,
    fid_interval,
    fidelity_interval,
    kid_interval,
    sliced_interval,
)
from cbdm_scale.metrics.memorisation import GroupMemorisation, Memorisation, memorisation
from cbdm_scale.metrics.options import K_NEAREST
from cbdm_scale.metrics.per_class import (
    KID_DRAWS,
    NUM_GROUPS_OF_ALL,
    ClassScore,
    ClassTable,
    Whole,
    class_table,
)
from cbdm_scale.metrics.prd import NUM_RUNS, PRD, prd
from cbdm_scale.metrics.precision_recall import ManifoldScores
from cbdm_scale.metrics.reference import MOST, LabelledFeatures, Reference, equal_manifold

VERSION = 2
"""Goes up when any number changes: what was computed before is then computed again."""

NO_CLASSIFIER = "the extractor does not know the classes of the data set; the classifier does"

T = TypeVar("T")


@dataclass
class _Gaps:
    """Collects the numbers that are not there."""

    missing: list[Missing] = field(default_factory=list)
    step: Callable[[], None] = lambda: None
    """Called after every attempt."""

    def note(self, names: Sequence[str], reason: str) -> None:
        self.missing += [Missing(name, reason) for name in names]

    def attempt(self, names: Sequence[str], compute: Callable[[], T]) -> T | None:
        """What ``compute`` gives; None, and a note for each name, if it cannot be had."""
        try:
            return compute()
        except torch.OutOfMemoryError:
            raise  # of a GPU: the CPU has more
        except (ValueError, RuntimeError, MemoryError) as error:  # torch's are RuntimeErrors
            self.note(names, str(error) or type(error).__name__)
            return None
        finally:
            self.step()


def compute_metrics(
    reference: Reference,
    fake: FeatureSet,
    counts: Sequence[int],
    *,
    omega: Strength,
    guidance_mode: str,
    guide: str = "",
    images: str = "",
    seed: int = 0,
    intervals: bool = True,
    step: Callable[[], None] = lambda: None,
) -> SetResult:
    """Every number of ``SetResult``, computed where the features of ``reference`` are; counts
    (K,) are those of the training set. torch.OutOfMemoryError if the device has not the memory.

    ``omega``, ``guidance_mode``, ``guide``, ``images``: what the record says of them.
    ``intervals``: False for the numbers alone, and one run of k-means for F_8.
    ``step``: called after each of ``num_steps(len(counts))`` pieces of the work.
    """
    gaps = _Gaps(step=step)
    x = reference.x
    made = LabelledFeatures(fake.pool.to(x.device), fake.labels)
    y = made.x
    found = gaps.attempt(("fidelity",), lambda: _fidelity(fake, len(counts), seed))
    hits, fidelity, shown = found or (None, None, ())
    scores: ManifoldScores | None = gaps.attempt(
        ("precision", "recall", "density", "coverage"),
        lambda: equal_manifold(reference.real, made, weigh=reference.weigh, seed=seed),
    )
    curve: PRD | None = gaps.attempt(
        ("f8", "f_eighth"),
        lambda: _curve(reference, y, len(counts), seed, intervals),
    )
    recall = scores.recall if scores else None
    whole = _whole(gaps, reference, made, recall, seed, intervals)
    table = gaps.attempt(
        ("table", "fld"),
        lambda: class_table(
            reference.real,
            LabelledFeatures(y, fake.labels, hits),
            counts,
            seed=seed,
            reference=reference,
            whole=whole,
            intervals=intervals,
            step=step,
        ),
    )
    if table and table.pooled[0].fld is None:
        gaps.note(("fld",), table.pooled[0].fld_missing or "")
    copies = gaps.attempt(("memorisation",), lambda: _memorisation(fake, reference, counts, y))
    nearest = copies.nearest if copies else None
    score = gaps.attempt(("inception_score",), lambda: _inception_score(fake))
    return SetResult(
        images=images,
        omega=omega,
        guidance_mode=guidance_mode,
        guide=guide,
        num_images=len(y),
        fid=whole.fid,
        kid=whole.kid,
        sliced_wasserstein=whole.sliced_wasserstein,
        fld=table.pooled[0].fld if table else None,
        inception_score=score,
        precision=scores.precision if scores else None,
        recall=recall,
        density=scores.density if scores else None,
        coverage=scores.coverage if scores else None,
        f8=curve.f8 if curve else None,
        f_eighth=curve.f_eighth if curve else None,
        prd_note=curve.note() if curve else "",
        prd_precision=tuple(curve.precision.tolist()) if curve else (),
        prd_recall=tuple(curve.recall.tolist()) if curve else (),
        fidelity=fidelity,
        shown=shown,
        table=table or ClassTable((), ()),
        memorisation=copies.groups if copies else (),
        examples=class_examples(counts, reference.real.y, fake.labels, nearest),
        missing=tuple(gaps.missing),
    )


def num_steps(num_classes: int) -> int:
    """Pieces of the work of ``compute_metrics``: a row a class and 4 pooled ones, 9 others."""
    return num_classes + 4 + 9


def _curve(
    reference: Reference, y: Tensor, num_classes: int, seed: int, intervals: bool
) -> PRD:
    """F_8 and F_1/8, from one run of k-means without ``intervals``."""
    runs, weights = NUM_RUNS if intervals else 1, reference.weights(reference.real)
    return prd(reference.x, y, num_classes, runs, seed=seed, weights=weights)


def _whole(
    gaps: _Gaps,
    reference: Reference,
    made: LabelledFeatures,
    recall: float | None,
    seed: int,
    intervals: bool,
) -> Whole:
    """The numbers of all classes together that the table shows as its first row."""
    parts = NUM_GROUPS_OF_ALL if intervals else 0
    return Whole(
        gaps.attempt(("fid",), lambda: fid_interval(reference.to(None), made.x, parts, seed)),
        gaps.attempt(("kid",), lambda: _kid(reference, made, seed, intervals)),
        recall,
        gaps.attempt(
            ("sliced_wasserstein",),
            lambda: sliced_interval(
                reference.sliced(None), made.some(MOST, seed).x, parts, seed
            ),
        ),
    )


def _kid(reference: Reference, fake: LabelledFeatures, seed: int, intervals: bool) -> Interval:
    a, b = reference.real.some(MOST, seed), fake.some(MOST, seed)
    draws = KID_DRAWS if intervals else 0
    return kid_interval(a.x, b.x, draws, seed, reference.weights(a))


def _fidelity(
    fake: FeatureSet, num_classes: int, seed: int
) -> tuple[Tensor, Interval, tuple[int, ...]]:
    """Whether the classifier sees each label, (M,), the share, and how many images it takes for
    each class (K,); ValueError without it."""
    if fake.logits is None:
        raise ValueError(NO_CLASSIFIER)
    if (fake.labels < 0).any():
        raise ValueError("the images have no labels")
    hits = label_hits(fake.logits, fake.labels, num_classes)
    shown = torch.bincount(fake.logits.argmax(1).cpu(), minlength=num_classes)
    return hits, fidelity_interval(hits, fake.labels, seed=seed), tuple(shown.tolist())


def _inception_score(fake: FeatureSet) -> Interval:
    if fake.imagenet is None:
        raise ValueError(
            "the extractor has no ImageNet classes. Try --extractor inception with the state "
            "dict pt_inception-2015-12-05-6726825d.pth"
        )
    return inception_score_of_logits(fake.imagenet)


def _memorisation(
    fake: FeatureSet, reference: Reference, counts: Sequence[int], y: Tensor
) -> Memorisation:
    """y: features of the generated images, on the device that computes."""
    train = reference.train
    if train is None:
        raise ValueError("it was not asked for (--no-memorisation)")
    return memorisation(train.x.to(y.device), train.y, y, fake.labels, counts)


# ----------------------------------------------------------------------------
# During training, from sums by class group.

NOT_IN_TRAINING = "not computed during training; cbdm evaluate computes it"


def compute_training_metrics(
    real: GroupScores,
    fake: GroupScores,
    counts: Sequence[int],
    omega: Strength,
    guidance_mode: str,
    copies: tuple[GroupMemorisation, ...] = (),
    manifold: Mapping[Group | None, ManifoldScores] | None = None,
) -> SetResult:
    """FID and label fidelity, overall and by group, without intervals.

    counts (K,) are those of the training set; copies and manifold (precision and recall, by
    group, None for all classes) are of the features that were stored; empty or None where
    nobody looked."""
    fid, fidelity = fid_by_group(real, fake), fake.label_fidelity()
    near = manifold or {}
    gaps = _Gaps()
    gaps.note(
        (
            *("kid", "sliced_wasserstein", "fld", "inception_score", "density", "coverage"),
            *("f8", "f_eighth"),
        ),
        NOT_IN_TRAINING,
    )
    if not copies:
        gaps.note(("memorisation",), NOT_IN_TRAINING)
    if None not in near:
        few = f"{K_NEAREST} images or fewer on a side"
        reason = "eval.recall_images is 0" if manifold is None else few
        gaps.note(("precision", "recall"), reason)
    if not fidelity:
        gaps.note(("fidelity",), NO_CLASSIFIER)

    def interval(found: dict[str, float], name: str) -> Interval | None:
        return Interval(found[name]) if name in found else None

    pooled = []
    for group in (None, *GROUPS):
        members = torch.tensor([group in (None, g) for g in real.groups])
        ending = f"_{group}" if group else ""
        distance = interval(fid, f"fid{ending}")
        num_real, num_fake = (int(side.num_images[members].sum()) for side in (real, fake))
        pooled.append(
            ClassScore(
                label=None,
                group=group,
                num_train=sum(n for n, member in zip(counts, members, strict=True) if member),
                num_real=num_real,
                num_fake=num_fake,
                kid=None,
                fid=distance,
                fid_images=(num_real, num_fake) if distance else None,
                fid_missing=None if distance else "fewer than 2 images on a side",
                fidelity=interval(fidelity, f"fidelity{ending}"),
                recall=near[group].recall if group in near else None,
                recall_images=near[group].num_real if group in near else None,
            )
        )
    return SetResult(
        images="",
        omega=omega,
        guidance_mode=guidance_mode,
        num_images=int(fake.num_images.sum()),
        fid=pooled[0].fid,
        precision=near[None].precision if None in near else None,
        recall=pooled[0].recall,
        fidelity=pooled[0].fidelity,
        table=ClassTable((), tuple(pooled)),
        memorisation=copies,
        missing=tuple(gaps.missing),
    )
