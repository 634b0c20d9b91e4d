"""What follows from the evaluations of a run: its best checkpoints, a tail that is lost or
copied, and whether it has run out of patience.

All follow from the evaluations alone, not from when they were made: a run that is killed and
goes on, and one whose evaluations arrive late, come to the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.metrics.options import BestBy

TAIL_RISE = 0.05
"""Share by which the tail's FID must be above its lowest to count as having risen."""
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


@dataclass(frozen=True)
class TailWarning:
    """The few classes are being lost: copied, or worse while the whole gets better."""

    lowest: ScorePoint
    """The evaluation with the lowest FID of the few classes."""
    now: ScorePoint
    """The newest one."""

    @property
    def kind(self) -> str:
        """What is warned of, each once."""
        return "lost" if self.now.held_out_copies is None else "copied"

    def __str__(self) -> str:
        a, b = self.lowest, self.now
        if b.held_out_copies is not None:
            return (
                "training images of the few classes are being copied: "
                f"{b.scores['copies_few']:.1%} of the images generated of them (at "
                f"{b.num_seen:,} images) lie as close to one as a copy does, "
                f"{b.held_out_copies:.1%} of real ones that were not trained on"
            )
        return (
            f"FID of the few classes rose from {a.scores['fid_few']:.1f} (at {a.num_seen:,} "
            f"images) to {b.scores['fid_few']:.1f} (at {b.num_seen:,}), while FID fell from "
            f"{a.scores['fid']:.1f} to {b.scores['fid']:.1f}"
        )


def best_point(points: Sequence[ScorePoint], by: BestBy) -> ScorePoint | None:
    """The lowest score, the earliest if it is there twice; None where none has it."""
    known = [point for point in points if by in point.scores]
    return min(known, key=lambda p: (p.scores[by], p.num_seen), default=None)


def end_of_patience(
    points: Sequence[ScorePoint], by: BestBy, patience: int
) -> tuple[ScorePoint, ScorePoint] | None:
    """The best evaluation, and the one that ends a run: so many in a row were no better.

    What is evaluated later takes an end back no more. None while there is patience, and with a
    patience of 0.
    """
    best: ScorePoint | None = None
    in_vain = 0
    for point in points if patience else ():
        if by not in point.scores:
            continue
        if best is None or point.scores[by] < best.scores[by]:
            best, in_vain = point, 0
            continue
        in_vain += 1
        if in_vain == patience:
            return best, point
    return None


def tail_warning(points: Sequence[ScorePoint]) -> TailWarning | None:
    """A warning if the last two evaluations both say that the tail is being copied, or lost.

    Copied: each has more near-copies in the few classes than chance gives. Lost: each has an
    FID of the few classes more than 5 % above the lowest so far, and an FID of all classes
    below the one of that time. ``points`` in order of images.
    """
    last = points[-TAIL_PATIENCE:]
    best = best_point(points, "fid_few")
    copied = all(point.held_out_copies is not None for point in last)
    if best and len(last) == TAIL_PATIENCE and copied:
        return TailWarning(best, last[-1])
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
    return TailWarning(lowest, last[-1])


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
