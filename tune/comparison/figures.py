"""The pictures of a comparison: differences to the control, curves over compute, strength."""

import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import altair as alt

from cbdm_scale.evaluation.report.charts import (
    COLOUR,
    Panel,
    Picture,
    ends,
    layers,
    series_colour,
    tooltip,
)
from cbdm_scale.evaluation.report.formatting import number, with_interval
from tune.comparison.choice import Grid
from tune.comparison.findings import HIGHER, Findings, Line

Row = dict[str, Any]
SCORES = {
    "fid": "FID",
    "fid_few": "FID of the few classes",
    "mind_few": "MIND of the few classes",
    "mind_worst": "MIND of the worst class",
    "kept_few": "label kept, few classes",
    "recall_few": "recall, few classes",
    "fld": "FLD",
    "copies_few": "copies, few classes",
}
CURVES = ("fid", "fid_many", "fid_medium", "fid_few")
TITLES = {
    "fid": "FID, all classes",
    "fid_many": "FID, many",
    "fid_medium": "FID, medium",
    "fid_few": "FID, few",
}
HUES = ("ink", "run", "best", "few", "many", "medium", "other", "bad", "muted", "all")
"""Of the lines, the control first; more lines than these begin again."""


def pictures(findings: Findings) -> dict[str, Picture]:
    """Name -> picture of all that can be drawn."""
    panels = {
        "differences": differences(findings),
        "compute": [
            curve(findings.lines, score, "compute, in images of the control", over_stops)
            for score in CURVES
        ],
        "strength": [
            curve(findings.lines, score, "guidance omega", over_strengths) for score in CURVES
        ],
    }
    found = {n: [p for p in some if p is not None] for n, some in panels.items()}
    return {name: Picture(name, tuple(some), 2) for name, some in found.items() if some}


def differences(findings: Findings) -> list[Panel | None]:
    """A panel a score: each line less the control, with its interval over seeds."""
    control, names = findings.control, [line.name for line in findings.lines[1:]]
    panels: list[Panel | None] = []
    for score, title in SCORES.items():
        rows: list[Row] = []
        for line in findings.lines[1:]:
            found = line.difference(control, score)
            if found is None or not math.isfinite(found.high):  # of one seed
                continue
            beyond = found.low > 0 or found.high < 0
            good = (found.value > 0) == (score in HIGHER)
            series = "no difference" if not beyond else "better" if good else "worse"
            rows.append(
                {"line": line.name, "series": series, "text": with_interval(found)}
                | ends(found)
            )
        panels.append(_difference_panel(rows, names, score, title) if rows else None)
    return panels


def _difference_panel(rows: list[Row], names: list[str], score: str, title: str) -> Panel:
    series = {"better": "best", "worse": "bad", "no difference": "other"}
    colour = series_colour(**{name: COLOUR[hue] for name, hue in series.items()})
    y = alt.Y("line:N", title=None, sort=names, axis=alt.Axis(labelLimit=200))
    x = alt.X("value:Q", title="less the control", scale=alt.Scale(zero=True))
    told = tooltip(line="method", series="beyond noise", text="difference")
    zero = layers([{"zero": 0}]).mark_rule(color=COLOUR["muted"], strokeDash=[3, 3])
    chart = alt.layer(
        zero.encode(x="zero:Q"),
        layers(rows).mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", y=y, color=colour),
        layers(rows)
        .mark_point(filled=True, size=70, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=told),
    )
    about = (
        "95 % interval; more is better" if score in HIGHER else "95 % interval; less is better"
    )
    return Panel(title, about, chart, height=40 + 26 * len(names))


def over_stops(grid: Grid, score: str) -> dict[float, float]:
    """Compute -> the score at the strength that is best for it then."""
    return _least(grid, score, lambda point: float(point[0]))


def over_strengths(grid: Grid, score: str) -> dict[float, float]:
    """Strength -> the score at the stop that is best for it."""
    return _least(grid, score, lambda point: point[1])


def _least(
    grid: Grid, score: str, of: Callable[[tuple[int, float]], float]
) -> dict[float, float]:
    found: dict[float, float] = {}
    for point, scores in grid.items():
        if score in scores:
            at = of(point)
            found[at] = min(found.get(at, float("inf")), scores[score])
    return found


def curve(
    lines: Iterable[Line],
    score: str,
    x_title: str,
    values: Callable[[Grid, str], dict[float, float]],
) -> Panel | None:
    """A score, a line a method: the mean over seeds with the smallest and the largest."""
    rows: list[Row] = []
    drawn = [line for line in lines if line.grid]
    for line in drawn:
        seeds = [values(grid, score) for grid in line.grid.values()]
        for at in sorted({at for one in seeds for at in one}):
            known = [one[at] for one in seeds if at in one]
            mean = statistics.fmean(known)
            row = {"x": at, "value": mean, "low": min(known), "high": max(known)}
            rows.append({**row, "series": line.name, "text": number(mean)})
    if len({row["x"] for row in rows}) < 2:
        return None
    colours = {line.name: COLOUR[HUES[i % len(HUES)]] for i, line in enumerate(drawn)}
    y = alt.Y("value:Q", title="FID", scale=alt.Scale(zero=False))
    x = alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False), axis=alt.Axis(format="~s"))
    colour = series_colour(**colours)
    told = [
        *tooltip(series="method", text="mean over seeds"),
        alt.Tooltip("x:Q", title=x_title),
    ]
    band = (
        layers(rows).mark_rule(opacity=0.35).encode(x=x, y="low:Q", y2="high:Q", color=colour)
    )
    line_mark = layers(rows).mark_line(point={"filled": True, "size": 40})
    chart = alt.layer(band, line_mark.encode(x=x, y=y, color=colour, tooltip=told))
    return Panel(TITLES[score], "at the other's best; the seeds' range", chart)
