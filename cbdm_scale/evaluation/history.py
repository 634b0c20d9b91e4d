"""What follows from the evaluations of a run: its best checkpoints, a tail that is lost, copied
or loses variety, and whether it has run out of patience.

All follow from the evaluations alone, not from when they were made: a run that is killed and
goes on, and one whose evaluations arrive late, come to the same.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.data.guidance_strength import Strength
from cbdm_scale.evaluation.cautions import beyond_chance
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.metrics.intervals import Interval, wilson
from cbdm_scale.metrics.options import BestBy

TAIL_RISE = 0.05
"""Share by which the tail's FID must be above another to count as higher."""
TAIL_PATIENCE = 2
"""Evaluations in a row that must agree, so that one unlucky one warns of nothing."""


@dataclass(frozen=True)
class ScorePoint:
    """The scores of a run after so many images, at one guidance strength."""

    num_seen: int
    scores: dict[str, float]
    held_out_copies: float | None = None
    """Near-copies among held-out real images of the few classes, where those of the generated
    ones (copies_few) are beyond it."""
    recall_images: int = 0
    """Real images of the few classes, of which recall_few is a share."""

    @classmethod
    def of(cls, num_seen: int, evaluation: Evaluation, omega: Strength) -> "ScorePoint":
        """The scores of an evaluation at one of its strengths."""
        (found,) = (one for one in evaluation.sets if one.omega == omega)
        few = [row.recall_images for row in found.table.pooled if row.group == "few"]
        made = [row for row in found.memorisation if row.group == "few"]
        held = [row for row in evaluation.held_out_copies if row.group == "few"]
        copied = made and held and beyond_chance(made[0], held[0])
        chance = held[0].copies if copied else None
        return cls(num_seen, found.scores, chance, (few and few[0]) or 0)


@dataclass(frozen=True)
class TailWarning:
    """The few classes are being lost: copied, less varied, or worse while the whole gets
    better."""

    kind: Literal["copied", "narrowed", "lost"]
    """Each is warned of once."""
    before: ScorePoint
    """narrowed: the evaluation with the highest recall of the few classes for such an FID of
    theirs; else that with their lowest FID."""
    now: ScorePoint
    """The newest one."""

    def __str__(self) -> str:
        a, b = self.before, self.now
        if self.kind == "copied":
            return (
                "training images of the few classes are being copied: "
                f"{b.scores['copies_few']:.1%} of the images generated of them (at "
                f"{b.num_seen:,} images) lie as close to one as a copy does, "
                f"{b.held_out_copies:.1%} of real ones that were not trained on"
            )
        if self.kind == "narrowed":
            return (
                "the few classes lose variety: their recall fell from "
                f"{a.scores['recall_few']:.2f} (at {a.num_seen:,} images) to "
                f"{b.scores['recall_few']:.2f} (at {b.num_seen:,}), and their FID went from "
                f"{a.scores['fid_few']:.1f} to {b.scores['fid_few']:.1f}"
            )
        return (
            f"FID of the few classes rose from {a.scores['fid_few']:.1f} (at {a.num_seen:,} "
            f"images) to {b.scores['fid_few']:.1f} (at {b.num_seen:,}), while FID fell from "
            f"{a.scores['fid']:.1f} to {b.scores['fid']:.1f}"
        )


def narrowed(points: Sequence[ScorePoint]) -> Mapping[int, ScorePoint]:
    """Evaluations at which the few classes have lost variety, and gained nothing for it.

    Images seen -> an earlier evaluation whose recall of the few classes is higher beyond chance
    (95 % intervals apart) at an FID of theirs that is no higher by more than 5 %: of several
    the one with the highest recall. ``points`` in order of images.
    """
    known = [
        p for p in points if p.recall_images and {"fid_few", "recall_few"} <= set(p.scores)
    ]
    found = {}
    for i, now in enumerate(known):
        most = now.scores["fid_few"] * (1 + TAIL_RISE)
        high = _recall(now).high
        better = [p for p in known[:i] if p.scores["fid_few"] <= most and _recall(p).low > high]
        if better:
            found[now.num_seen] = max(better, key=lambda p: p.scores["recall_few"])
    return found


def _recall(point: ScorePoint) -> Interval:
    return wilson(point.scores["recall_few"], point.recall_images)


def best_point(
    points: Sequence[ScorePoint], by: BestBy, without: Collection[int] = ()
) -> ScorePoint | None:
    """The lowest score, the earliest if it is there twice; None where none has it.

    without: images seen of those that do not count (``narrowed``, for fid_few).
    """
    known = [p for p in points if by in p.scores and p.num_seen not in without]
    return min(known, key=lambda p: (p.scores[by], p.num_seen), default=None)


def end_of_patience(
    points: Sequence[ScorePoint], by: BestBy, patience: int
) -> tuple[ScorePoint, ScorePoint] | None:
    """The best evaluation, and the one that ends a run: so many in a row were no better.

    By fid_few one that has ``narrowed`` is no better. What is evaluated later takes an end back
    no more. None while there is patience, and with a patience of 0.
    """
    best: ScorePoint | None = None
    in_vain, without = 0, narrowed(points) if by == "fid_few" else ()
    for point in points if patience else ():
        if by not in point.scores:
            continue
        lower = best is None or point.scores[by] < best.scores[by]
        if lower and point.num_seen not in without:
            best, in_vain = point, 0
            continue
        in_vain += 1
        if best and in_vain == patience:
            return best, point
    return None


def tail_warning(points: Sequence[ScorePoint]) -> TailWarning | None:
    """A warning if the last two evaluations both say that the tail is being copied, loses
    variety, or is lost; the first of these that holds.

    Copied: each has more near-copies in the few classes than chance gives. Variety: each has
    ``narrowed``. Lost: each has an FID of the few classes more than 5 % above the lowest so
    far, and an FID of all classes below the one of that time. ``points`` in order of images.
    """
    last = points[-TAIL_PATIENCE:]
    best = best_point(points, "fid_few")
    copied = all(point.held_out_copies is not None for point in last)
    if best and len(last) == TAIL_PATIENCE and copied:
        return TailWarning("copied", best, last[-1])
    less = narrowed(points)
    if len(last) == TAIL_PATIENCE and all(point.num_seen in less for point in last):
        return TailWarning("narrowed", less[last[-1].num_seen], last[-1])
    known = [p for p in points if "fid" in p.scores and "fid_few" in p.scores]
    lowest = best_point(known, "fid_few")
    if lowest is None:
        return None
    last = known[-TAIL_PATIENCE:]
    for point in last:
        fell = point.scores["fid"] < lowest.scores["fid"]
        rose = point.scores["fid_few"] > lowest.scores["fid_few"] * (1 + TAIL_RISE)
        if not (point.num_seen > lowest.num_seen and fell and rose):
            return None
    return TailWarning("lost", lowest, last[-1])


def check_best_by(
    by: BestBy,
    extractor: str,
    groups: Sequence[str],
    real_counts: Sequence[int],
    num_images: int,
) -> None:
    """ValueError if the score that chooses the best checkpoint could never be computed.

    groups: of each of the K classes; real_counts: images of each in the eval split.
    """
    if by == "fid":
        return
    if extractor == "none":
        raise ValueError(
            "eval.best_by (fid_few) needs an FID, and eval.extractor none computes none. Try "
            "--eval.extractor classifier, or --eval.best-by fid."
        )
    few = [c for c, group in enumerate(groups) if group == "few"]
    if not few:
        found = ", ".join(group for group in GROUPS if group in groups)
        raise ValueError(
            f"eval.best_by (fid_few) needs classes of the group few, and the data set has only "
            f"{found}. Try --eval.best-by fid."
        )
    real = sum(real_counts[c] for c in few)
    made = sum(len(range(c, num_images, len(groups))) for c in few)
    if min(real, made) < 2:
        raise ValueError(
            f"eval.best_by (fid_few) needs 2 images of the few classes on either side, there "
            f"are {real} real ones and {made} of eval.num_images ({num_images}). Try "
            f"--eval.num-images {2 * len(groups)}, or --eval.best-by fid."
        )
