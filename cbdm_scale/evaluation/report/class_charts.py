"""Scores of every class against its training images (the paper's Figure 4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.evaluation.report.canvas import (
    GROUP_COLOURS,
    GROUP_MARKERS,
    INK,
    MUTED,
    OTHER,
    PAPER,
    Panel,
    Picture,
)
from cbdm_scale.evaluation.report.words import KID_SCALE, scaled
from cbdm_scale.evaluation.results import SetResult
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.per_class import ClassScore

CROWDED = 30
"""With more classes, lines through the middle of each frequency take the place of pairs."""
DENSE = 200
"""With more classes, whiskers are faint."""
NUM_BINS = 8


@dataclass(frozen=True)
class Point:
    """One class in a chart."""

    row: ClassScore
    value: float
    low: float
    high: float


Measure = Callable[[ClassScore], Interval | None]


def class_picture(found: SetResult, against: SetResult | None) -> Picture | None:
    """KID, FID and label fidelity by class frequency; None where no class has any."""
    measures: tuple[tuple[str, Measure], ...] = (
        ("KID × 1000, lower is better", _kid),
        ("FID, lower is better", lambda row: row.fid),
        ("Label fidelity in %, higher is better", _fidelity),
    )
    panels = [
        Panel(
            title,
            _drawing(points, _points(against, measure), without),
            width=4.0,
            height=3.1,
            legend_above=True,
        )
        for title, measure in measures
        if (points := _points(found, measure))
        for without in [_without(found, measure)]
    ]
    return Picture("per_class", tuple(panels), columns=3) if panels else None


def _kid(row: ClassScore) -> Interval | None:
    return scaled(row.kid, KID_SCALE) if row.kid else None


def _fidelity(row: ClassScore) -> Interval | None:
    return scaled(row.fidelity, 100) if row.fidelity else None


def _points(found: SetResult | None, measure: Measure) -> list[Point]:
    """The classes that have the number."""
    points = []
    for row in found.table.classes if found else ():
        number = measure(row)
        if number is not None:
            points.append(Point(row, number.value, number.low, number.high))
    return points


def _without(found: SetResult, measure: Measure) -> list[ClassScore]:
    return [row for row in found.table.classes if measure(row) is None]


def _x(row: ClassScore) -> float:
    return max(row.num_train, 0.5)  # a logarithm has no place for 0


def _drawing(
    points: Sequence[Point], others: Sequence[Point], without: Sequence[ClassScore]
) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        crowded = len(points) > CROWDED
        axes.set_xscale("log")
        axes.set_xlabel("training images of the class")
        if others:
            _draw_others(axes, points, others, crowded)
        _draw_points(axes, points, crowded)
        if crowded:
            axes.plot(*_middle(points), color=INK, lw=1.8, zorder=5, label="median")
        if without:
            axes.plot(
                [_x(row) for row in without],
                [0.0] * len(without),
                "x",
                color=MUTED,
                ms=4,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
                label="none",
            )
        lowest = min(point.low for point in points)
        if lowest >= 0:
            axes.set_ylim(bottom=0)
        _plain_ticks(axes)
        _legend(axes)

    return draw


def _draw_points(axes: Any, points: Sequence[Point], crowded: bool) -> None:
    """Whiskers as one path a group, then the classes themselves."""
    for group in GROUPS:
        mine = [point for point in points if point.row.group == group]
        if not mine:
            continue
        x, y = [], []
        for point in mine:
            x += [_x(point.row), _x(point.row), float("nan")]
            y += [point.low, point.high, float("nan")]
        colour = GROUP_COLOURS[group]
        axes.plot(
            x,
            y,
            color=colour,
            lw=0.8 if crowded else 1.4,
            alpha=0.2 if len(points) > DENSE else 0.45,
            zorder=2,
        )
        axes.plot(
            [_x(point.row) for point in mine],
            [point.value for point in mine],
            GROUP_MARKERS[group],
            color=colour,
            ms=3.6 if crowded else 6.5,
            mec=PAPER,
            mew=0.3 if crowded else 0.8,
            zorder=4,
            label=group,
        )


def _draw_others(
    axes: Any, points: Sequence[Point], others: Sequence[Point], crowded: bool
) -> None:
    """The other run: hollow beside each class, or only its middle where it is crowded."""
    if crowded:
        axes.plot(
            *_middle(others),
            color=OTHER,
            lw=1.8,
            ls=(0, (4, 2)),
            zorder=3,
            label="other run",
        )
        return
    ours = {point.row.label: point.value for point in points}
    for point in others:
        if point.row.label in ours:
            x, ends = _x(point.row), [point.value, ours[point.row.label]]
            axes.plot([x, x], ends, color=OTHER, lw=1.0, ls=(0, (1, 1.5)), zorder=1)
    axes.plot(
        [_x(point.row) for point in others],
        [point.value for point in others],
        "o",
        mfc=PAPER,
        mec=OTHER,
        mew=1.3,
        ms=5.5,
        zorder=3,
        label="other run",
    )


def _middle(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Medians over equally many classes, from the rarest to the most frequent."""
    ordered = sorted(points, key=lambda point: _x(point.row))
    size = -(-len(ordered) // NUM_BINS)
    bins = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    x = [median(_x(point.row) for point in part) for part in bins]
    return x, [median(point.value for point in part) for part in bins]


def _legend(axes: Any) -> None:
    """Above the drawing: groups first, then lines, then the other run."""
    order = [*GROUPS, "median", "other run", "none"]
    handles, labels = axes.get_legend_handles_labels()
    found = sorted(zip(handles, labels, strict=True), key=lambda pair: order.index(pair[1]))
    axes.legend(
        [handle for handle, _ in found],
        [label for _, label in found],
        loc="lower left",
        bbox_to_anchor=(-0.04, 0.99),
        ncols=len(order),
        columnspacing=0.8,
        handletextpad=0.2,
        handlelength=1.5,
        borderpad=0.2,
    )


def _plain_ticks(axes: Any) -> None:
    """5, 20, 100 in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else ""))
    axes.xaxis.set_minor_formatter(NullFormatter())
