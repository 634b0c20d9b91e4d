"""All numbers of a set of generated images, from features; what cannot be had says why.

Shapes: N = real images, M = generated images, T = training images, D = features, K = classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.data.strength import Strength
from cbdm_scale.evaluation.results import ClassExamples, Missing, SetResult
from cbdm_scale.metrics.extract import FeatureSet
from cbdm_scale.metrics.features import label_hits
from cbdm_scale.metrics.fid import Reference
from cbdm_scale.metrics.groups import GroupScores, fid_by_group, stored_recall
from cbdm_scale.metrics.inception_score import inception_score_of_logits
from cbdm_scale.metrics.intervals import (
    Interval,
    fid_interval,
    fidelity_interval,
    kid_interval,
)
from cbdm_scale.metrics.memorisation import GroupMemorisation, Memorisation, memorisation
from cbdm_scale.metrics.per_class import (
    ClassScore,
    ClassTable,
    LabelledFeatures,
    Whole,
    class_table,
)
from cbdm_scale.metrics.prd import PRD, prd
from cbdm_scale.metrics.precision_recall import ManifoldScores, manifold_scores

VERSION = 1
"""Goes up when any number changes: what was computed before is then computed again."""
NUM_NEIGHBOURS = 5
KID_IMAGES = 10_000
"""KID of all classes together is of at most so many random images a side."""
IMAGES_PER_CLASS = 8
"""That a report shows, at most."""
HELD_OUT = 10_000
"""Real images, at most, that memorisation is compared with."""

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
    real: FeatureSet,
    fake: FeatureSet,
    train: FeatureSet | None,
    counts: Sequence[int],
    *,
    omega: Strength,
    guidance_mode: str,
    guide: str = "",
    images: str = "",
    seed: int = 0,
    reference: Reference | None = None,
    device: torch.device | str = "cpu",
    step: Callable[[], None] = lambda: None,
) -> SetResult:
    """Every number of ``SetResult``, computed on a device; counts (K,) are those of the
    training set. torch.OutOfMemoryError if the device has not the memory.

    ``train``: features of the training images, None where memorisation is not looked for.
    ``omega``, ``guidance_mode``, ``guide``, ``images``: what the record says of them.
    ``reference``: of ``real``, where several sets share it.
    ``step``: called after each of ``num_steps(len(counts))`` pieces of the work.
    """
    gaps = _Gaps(step=step)
    refer = reference or Reference(real.pool.to(device), real.labels, counts)
    x, y = refer.x, fake.pool.to(device)
    both = min(len(x), len(y))
    kid_x, kid_y = _some(x, KID_IMAGES, seed), _some(y, KID_IMAGES, seed)
    found = gaps.attempt(("fidelity",), lambda: _fidelity(fake, len(counts), seed))
    hits, fidelity = found or (None, None)
    scores: ManifoldScores | None = gaps.attempt(
        ("precision", "recall", "density", "coverage"),
        lambda: manifold_scores(_some(x, both, seed), _some(y, both, seed), NUM_NEIGHBOURS),
    )
    curve: PRD | None = gaps.attempt(
        ("f8", "f_eighth"), lambda: prd(x, y, len(counts), seed=seed)
    )
    fid = gaps.attempt(("fid",), lambda: fid_interval(refer.to(None), y, seed=seed))
    kid = gaps.attempt(("kid",), lambda: kid_interval(kid_x, kid_y, seed=seed))
    sides = LabelledFeatures(x, real.labels), LabelledFeatures(y, fake.labels, hits)
    table = gaps.attempt(
        ("table",),
        lambda: class_table(
            *sides,
            counts,
            kid_images=KID_IMAGES,
            seed=seed,
            reference=refer,
            whole=Whole(fid, kid),
            step=step,
        ),
    )
    copies = gaps.attempt(("memorisation",), lambda: _memorisation(fake, train, counts, y))
    nearest = copies.nearest if copies else None
    score = gaps.attempt(("inception_score",), lambda: _inception_score(fake))
    return SetResult(
        images=images,
        omega=omega,
        guidance_mode=guidance_mode,
        guide=guide,
        num_images=len(y),
        fid=fid,
        kid=kid,
        inception_score=score,
        precision=scores.precision if scores else None,
        recall=scores.recall if scores else None,
        density=scores.density if scores else None,
        coverage=scores.coverage if scores else None,
        f8=curve.f8 if curve else None,
        f_eighth=curve.f_eighth if curve else None,
        prd_note=curve.note() if curve else "",
        prd_precision=tuple(curve.precision.tolist()) if curve else (),
        prd_recall=tuple(curve.recall.tolist()) if curve else (),
        fidelity=fidelity,
        table=table or ClassTable((), ()),
        memorisation=copies.groups if copies else (),
        examples=class_examples(counts, real.labels, fake.labels, nearest),
        missing=tuple(gaps.missing),
    )


def num_steps(num_classes: int) -> int:
    """Pieces of the work of ``compute_metrics``: a row a class and 4 pooled ones, 8 others."""
    return num_classes + 4 + 8


def _some(x: Tensor, most: int, seed: int) -> Tensor:
    """At most so many images, drawn by the seed; all of them in order if they are fewer."""
    if len(x) <= most:
        return x
    rng = torch.Generator().manual_seed(seed)
    return x[torch.randperm(len(x), generator=rng)[:most]]


def _fidelity(fake: FeatureSet, num_classes: int, seed: int) -> tuple[Tensor, Interval]:
    """Whether the classifier sees each label, (M,), and the share; ValueError without it."""
    if fake.logits is None:
        raise ValueError(NO_CLASSIFIER)
    if (fake.labels < 0).any():
        raise ValueError("the images have no labels")
    hits = label_hits(fake.logits, fake.labels, num_classes)
    return hits, fidelity_interval(hits, fake.labels, seed=seed)


def _inception_score(fake: FeatureSet) -> Interval:
    if fake.imagenet is None:
        raise ValueError(
            "the extractor has no ImageNet classes. Try --extractor inception with the state "
            "dict pt_inception-2015-12-05-6726825d.pth"
        )
    score = inception_score_of_logits(fake.imagenet)
    return Interval(score.mean, score.mean - score.std, score.mean + score.std)


def _memorisation(
    fake: FeatureSet, train: FeatureSet | None, counts: Sequence[int], y: Tensor
) -> Memorisation:
    """y: features of the generated images, on the device that computes."""
    if train is None:
        raise ValueError("it was not asked for (--no-memorisation)")
    return memorisation(train.pool.to(y.device), train.labels, y, fake.labels, counts)


def held_out(train: FeatureSet, real: FeatureSet, seed: int = 0) -> Tensor:
    """Rows of real images that are no training images, by their pixels: (R,) int64."""
    rows = (~torch.isin(real.hashes, train.hashes)).nonzero().flatten()
    return _some(rows, HELD_OUT, seed).sort().values


def held_out_copies(
    train: FeatureSet,
    real: FeatureSet,
    counts: Sequence[int],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[GroupMemorisation, ...]:
    """The memorisation check of real images that were not trained on: what chance gives.

    Empty where all real images were trained on.
    """
    rows = held_out(train, real, seed)
    if not len(rows) or len(train.pool) < 2:
        return ()
    sides = train.pool.to(device), train.labels, real.pool[rows].to(device), real.labels[rows]
    return memorisation(*sides, counts).groups


# ----------------------------------------------------------------------------
# During training, from sums by class group.

NOT_IN_TRAINING = "not computed during training; python -m cbdm_scale.evaluate computes it"


def group_result(
    real: GroupScores,
    fake: GroupScores,
    counts: Sequence[int],
    omega: Strength,
    guidance_mode: str,
    copies: tuple[GroupMemorisation, ...] = (),
) -> SetResult:
    """FID and label fidelity, overall and by group, without intervals; precision and recall
    of the features that were stored. counts (K,) are those of the training set; copies: found
    among the stored ones, empty where nobody looked."""
    fid, fidelity = fid_by_group(real, fake), fake.label_fidelity()
    stored = stored_recall(real, fake)
    gaps = _Gaps()
    gaps.note(
        ("kid", "inception_score", "density", "coverage", "f8", "f_eighth"), NOT_IN_TRAINING
    )
    if not copies:
        gaps.note(("memorisation",), NOT_IN_TRAINING)
    if not stored:
        gaps.note(("precision", "recall"), "eval.recall_images is 0")
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
            )
        )
    return SetResult(
        images="",
        omega=omega,
        guidance_mode=guidance_mode,
        num_images=int(fake.num_images.sum()),
        fid=pooled[0].fid,
        precision=stored.get("precision"),
        recall=stored.get("recall"),
        fidelity=pooled[0].fidelity,
        table=ClassTable((), tuple(pooled)),
        memorisation=copies,
        missing=tuple(gaps.missing),
    )


def shown_classes(counts: Sequence[int], each: int = 2) -> tuple[int, ...]:
    """Head, middle and tail of the classes by training images: up to ``each`` of each.

    All classes where there are no more than three times ``each``. Ties in label order.
    """
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    if len(order) <= 3 * each:
        return tuple(order)
    middle = (len(order) - each) // 2
    return (*order[:each], *order[middle : middle + each], *order[-each:])


def class_examples(
    counts: Sequence[int], real: Tensor, fake: Tensor, nearest: Tensor | None
) -> tuple[ClassExamples, ...]:
    """The first images of some classes, as many of each; classes with none are left out.

    counts (K,) of the training set choose the classes; real (N,) and fake (M,) are labels,
    nearest (M,) training images.
    """
    rows = {
        c: [(labels == c).nonzero().flatten().tolist() for labels in (real, fake)]
        for c in shown_classes(counts)
    }
    rows = {c: sides for c, sides in rows.items() if all(sides)}
    n = min((len(side) for sides in rows.values() for side in sides), default=0)
    n = min(n, IMAGES_PER_CLASS)
    return tuple(
        ClassExamples(
            label=c,
            real=tuple(real_rows[:n]),
            generated=tuple(fake_rows[:n]),
            nearest=() if nearest is None else tuple(nearest[fake_rows[:n]].tolist()),
        )
        for c, (real_rows, fake_rows) in rows.items()
    )
