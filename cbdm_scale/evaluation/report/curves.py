"""Curves over the guidance strength (the paper's Figure 6), the PRD curve, and near-copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cbdm_scale.evaluation.report.canvas import (
    BEST,
    GROUP_COLOURS,
    INK,
    MUTED,
    OTHER,
    PAPER,
    RUN,
    Panel,
    Picture,
)
from cbdm_scale.evaluation.report.words import KID_SCALE, scaled
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.intervals import Interval, wilson
from cbdm_scale.metrics.memorisation import GroupMemorisation

Measure = Callable[[SetResult], Interval | float | None]


@dataclass(frozen=True)
class Track:
    """One number of all sets: at each strength where it is there."""

    omega: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


MEASURES: tuple[tuple[str, bool, Measure], ...] = (
    ("FID", True, lambda s: s.fid),
    ("KID × 1000", True, lambda s: scaled(s.kid, KID_SCALE) if s.kid else None),
    ("Inception Score", False, lambda s: s.inception_score),
    ("Recall", False, lambda s: s.recall),
    ("F_8 (diversity)", False, lambda s: s.f8),
    ("F_1/8 (fidelity)", False, lambda s: s.f_eighth),
    ("Label fidelity in %", False, lambda s: scaled(s.fidelity, 100) if s.fidelity else None),
    ("Precision", False, lambda s: s.precision),
)
"""Title, whether lower is better, the number."""


def guidance_picture(evaluation: Evaluation, against: Evaluation | None) -> Picture | None:
    """A panel a number over omega; None with a single strength."""
    if len({s.omega for s in evaluation.sets}) < 2:
        return None
    panels = []
    for title, lower, measure in MEASURES:
        ours = track(evaluation.sets, measure)
        theirs = track(against.sets, measure) if against else None
        if len(ours.omega) > 1:
            arrow = "lower is better" if lower else "higher is better"
            draw = _guidance(ours, theirs, lower, evaluation.best.omega)
            panels.append(Panel(f"{title}, {arrow}", draw, width=2.9, height=2.0))
    return Picture("guidance", tuple(panels), columns=4) if panels else None


def track(sets: Sequence[SetResult], measure: Measure) -> Track:
    """The number at every strength that has it."""
    found = []
    for one in sets:
        number = measure(one)
        if isinstance(number, Interval):
            found.append((one.omega, number.value, number.low, number.high))
        elif number is not None:
            found.append((one.omega, number, number, number))
    omega, value, low, high = zip(*found, strict=True) if found else ((), (), (), ())
    return Track(omega, value, low, high)


def _guidance(
    ours: Track, theirs: Track | None, lower: bool, best_fid: float
) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        axes.axvline(best_fid, color=BEST, lw=1.1, ls=(0, (3, 2)), zorder=1)
        if theirs and theirs.omega:
            axes.fill_between(
                theirs.omega, theirs.low, theirs.high, color=OTHER, alpha=0.15, lw=0
            )
            axes.plot(theirs.omega, theirs.value, "o--", color=OTHER, ms=3, lw=1.3)
        colour = RUN
        axes.fill_between(ours.omega, ours.low, ours.high, color=colour, alpha=0.18, lw=0)
        axes.plot(ours.omega, ours.value, "o-", color=colour, ms=4, lw=1.8, mec=PAPER, mew=0.6)
        pick = min if lower else max
        at = pick(range(len(ours.value)), key=lambda i: ours.value[i])
        axes.plot(
            ours.omega[at], ours.value[at], "o", ms=9, mfc="none", mec=INK, mew=1.4, zorder=5
        )
        axes.margins(y=0.2)
        axes.set_xlabel("guidance omega")
        if len(ours.omega) <= 7:
            axes.set_xticks(ours.omega, [f"{omega:g}" for omega in ours.omega])

    return draw


def prd_picture(found: SetResult, against: SetResult | None) -> Picture | None:
    """Precision over recall; None where there is no curve."""
    if not found.prd_precision:
        return None

    def draw(axes: Any) -> None:
        if against and against.prd_precision:
            axes.plot(
                against.prd_recall, against.prd_precision, "--", color=OTHER, lw=1.6,
                label="other run",
            )  # fmt: skip
        colour = RUN
        axes.plot(found.prd_recall, found.prd_precision, color=colour, lw=2.2, label="this run")
        axes.fill_between(found.prd_recall, found.prd_precision, color=colour, alpha=0.08, lw=0)
        for label, beta, place in (("F_8", 8.0, (-27, -3)), ("F_1/8", 1 / 8, (-14, -15))):
            recall, precision = _largest_f(found, beta)
            axes.plot(recall, precision, "o", ms=6, color=colour, mec=PAPER, zorder=5)
            axes.annotate(
                label, (recall, precision), place, textcoords="offset points", fontsize=8.5
            )
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.legend(loc="lower left")

    return Picture("prd", (Panel("Precision and recall of distributions", draw, 4.6, 3.3),))


def _largest_f(found: SetResult, beta: float) -> tuple[float, float]:
    """(recall, precision) where F_beta is largest along the curve."""

    def score(point: tuple[float, float]) -> float:
        recall, precision = point
        below = beta**2 * precision + recall
        return (1 + beta**2) * precision * recall / below if below else 0.0

    return max(zip(found.prd_recall, found.prd_precision, strict=True), key=score)


def copies_picture(
    made: Sequence[GroupMemorisation], held_out: Sequence[GroupMemorisation]
) -> Picture | None:
    """Share of near-copies by class group, beside that of real images not trained on."""
    rows = [row for row in made if row.copies is not None]
    if not rows:
        return None
    chance = {row.group: row for row in held_out if row.copies is not None}

    def draw(axes: Any) -> None:
        for place, row in enumerate(rows):
            share = scaled(wilson(row.copies or 0.0, row.num_images), 100)
            colour = GROUP_COLOURS[row.group]
            axes.barh(place - 0.17, share.value, 0.34, color=colour)
            axes.plot([share.low, share.high], [place - 0.17] * 2, color=INK, lw=1.2)
            held = chance.get(row.group)
            if held:
                share = scaled(wilson(held.copies or 0.0, held.num_images), 100)
                axes.barh(place + 0.2, share.value, 0.26, color=OTHER)
                axes.plot([share.low, share.high], [place + 0.2] * 2, color=MUTED, lw=1.2)
        axes.set_yticks(range(len(rows)), [row.group or "all" for row in rows])
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlim(left=0)
        axes.set_xlabel("% of images as close to a training image as a copy")

    grey = "grey: real images that were not trained on" if chance else ""
    title = f"Near-copies of training images, {grey}".removesuffix(", ")
    return Picture("copies", (Panel(title, draw, 4.6, 3.3),))
