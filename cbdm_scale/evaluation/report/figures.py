"""The pictures of an evaluation: by class (Figure 4), over guidance (Figure 6), diversity."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import altair as alt

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.data.guidance_strength import Strength
from cbdm_scale.evaluation.report.charts import (
    COLOUR,
    HEIGHT,
    OTHER_RUN,
    Panel,
    Picture,
    Row,
    ends,
    layers,
    log_ticks,
    series_colour,
    tooltip,
)
from cbdm_scale.evaluation.report.diversity import copies_panels, prd_panels
from cbdm_scale.evaluation.report.formatting import (
    class_name,
    kid_1000,
    number,
    scaled,
    short_name,
    with_interval,
)
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.per_class import ClassScore

CROWDED = 30
"""With more classes, medians over their frequency take the place of the other run's points."""
DRAWN = 1_000
"""Classes that have a mark of their own, spread over their frequency; medians are of all."""
NUM_BINS = 8
MANY_CLASSES = 40
"""With more classes, label fidelity is drawn as a map."""
MAP_COLUMNS = 50

LOWER, HIGHER = "lower is better", "higher is better"
OMEGA = "guidance omega"


def pictures(evaluation: Evaluation, beside: Evaluation | None) -> dict[str, Picture]:
    """Name -> picture of all that can be drawn of what is there.

    beside: another run's evaluation with only the numbers that compare (``compare.fair``).
    """
    found = {
        "per_class": class_panels(evaluation, beside.best if beside else None),
        "label_fidelity": fidelity_map(evaluation),
        "guidance": guidance_panels(evaluation, beside),
        "prd": prd_panels(evaluation.best, beside.best if beside else None),
        "copies": copies_panels(evaluation),
    }
    return {name: Picture(name, tuple(panels)) for name, panels in found.items() if panels}


def _percent(share: Interval | None) -> Interval | None:
    return scaled(share, 100) if share else None


CLASS_MEASURES: tuple[tuple[str, str, Callable[[ClassScore], Interval | None]], ...] = (
    ("KID × 1000", LOWER, lambda row: kid_1000(row.kid)),
    ("FID", LOWER, lambda row: row.fid),
    ("Label fidelity in %", HIGHER, lambda row: _percent(row.fidelity)),
)
SET_MEASURES: tuple[tuple[str, str, Callable[[SetResult], Interval | float | None]], ...] = (
    ("FID", LOWER, lambda s: s.fid),
    ("KID × 1000", LOWER, lambda s: kid_1000(s.kid)),
    ("Inception Score", HIGHER, lambda s: s.inception_score),
    ("Recall", HIGHER, lambda s: s.recall),
    ("F_8 (diversity)", HIGHER, lambda s: s.f8),
    ("F_1/8 (fidelity)", HIGHER, lambda s: s.f_eighth),
    ("Label fidelity in %", HIGHER, lambda s: _percent(s.fidelity)),
    ("Precision", HIGHER, lambda s: s.precision),
)
"""Title, which way is better, the number."""


def class_panels(evaluation: Evaluation, other: SetResult | None) -> list[Panel]:
    """KID, FID and label fidelity of every class over its training images."""
    names = evaluation.class_names
    panels = []
    for title, better, measure in CLASS_MEASURES:
        rows = _class_rows(evaluation.best, names, measure)
        without = [row for row in evaluation.best.table.classes if measure(row) is None]
        theirs = _class_rows(other, names, measure) if other else []
        if rows:
            chart = _class_chart(rows, theirs, [max(row.num_train, 0.5) for row in without])
            some = f", {DRAWN:,} classes at most" if len(rows) > DRAWN else ""
            panels.append(Panel(title, better + some, chart))
    return panels


def _class_rows(
    found: SetResult, names: Sequence[str], measure: Callable[[ClassScore], Interval | None]
) -> list[Row]:
    """The classes that have the number."""
    return [
        {
            "name": short_name(class_name(names, row.label or 0)),
            "series": row.group,
            "images": f"{row.num_train:,}",
            "x": max(row.num_train, 0.5),  # a logarithm has no place for 0
            "text": with_interval(value),
            **ends(value),
        }
        for row in found.table.classes
        if (value := measure(row)) is not None
    ]


def _class_chart(rows: list[Row], theirs: list[Row], without: list[float]) -> Any:
    """Whiskers, then classes; medians where there are many; the other run behind them."""
    crowded = len(rows) > CROWDED
    series: dict[str, str] = {
        g: COLOUR[g] for g in GROUPS if any(row["series"] == g for row in rows)
    }
    series |= {"median": COLOUR["ink"]} if crowded else {}
    series |= {OTHER_RUN: COLOUR["other"]} if theirs else {}
    shapes = {"many": "circle", "medium": "diamond", "few": "triangle-up", "median": "stroke"}
    ticks = log_ticks([row["x"] for row in rows])
    axis = alt.Axis(title="training images of the class", values=ticks, format=",~g")
    x = alt.X("x:Q", scale=alt.Scale(type="log", nice=False, padding=12), axis=axis)
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=min(r["low"] for r in rows) >= 0))
    colour = series_colour(**series)
    shape = alt.Shape(
        "series:N",
        scale=alt.Scale(domain=list(series), range=[shapes.get(s, "circle") for s in series]),
        sort=None,
    )
    tip = tooltip(name="class", series="group", images="training images", text="value")
    drawn = sorted(rows, key=lambda row: float(row["x"]))[:: -(-len(rows) // DRAWN)]
    ours, others = layers(drawn), layers([{**row, "series": OTHER_RUN} for row in theirs])
    parts = []
    if theirs and crowded:
        medians = layers(_medians(theirs, OTHER_RUN))
        dashed = medians.mark_line(strokeDash=[5, 3], strokeWidth=2)
        parts.append(dashed.encode(x=x, y=y, color=colour))
    elif theirs:
        hollow = others.mark_point(filled=False, size=45, strokeWidth=1.5)
        parts.append(hollow.encode(x=x, y=y, color=colour, shape=shape, tooltip=tip))
    whiskers = ours.mark_rule(opacity=0.15 if crowded else 0.5)
    parts.append(whiskers.encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q", color=colour))
    points = ours.mark_point(filled=True, opacity=1, size=28 if crowded else 70)
    parts.append(points.encode(x=x, y=y, color=colour, shape=shape, tooltip=tip))
    if crowded:
        line = layers(_medians(rows, "median")).mark_line(strokeWidth=2)
        parts.append(line.encode(x=x, y=y, color=colour))
    if without:
        at_most = sorted(without)[:: -(-len(without) // DRAWN)]
        crosses = layers([{"x": at, "why": "no number"} for at in at_most]).mark_point(
            shape="cross", angle=45, size=30, filled=True, color=COLOUR["muted"]
        )
        parts.append(
            crosses.encode(x=x, y=alt.value(HEIGHT), tooltip=tooltip(x="images", why="value"))
        )
    return alt.layer(*parts)


def _medians(rows: Sequence[Row], series: str) -> list[Row]:
    """Medians over equally many classes, from the rarest to the most frequent."""
    ordered = sorted(rows, key=lambda row: float(row["x"]))
    size = -(-len(ordered) // NUM_BINS)
    bins = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    middles = ({k: median(row[k] for row in part) for k in ("x", "value")} for part in bins)
    return [{**middle, "series": series} for middle in middles]


def fidelity_map(evaluation: Evaluation) -> list[Panel]:
    """Label fidelity of many classes, a square a class, the most frequent first."""
    classes = evaluation.best.table.classes
    if len(classes) <= MANY_CLASSES or not any(row.fidelity for row in classes):
        return []
    ordered = sorted(classes, key=lambda row: (-row.num_train, row.label or 0))
    columns = min(MAP_COLUMNS, -(-len(ordered) // 4))
    rows = [
        {
            "row": place // columns,
            "column": place % columns,
            "name": short_name(class_name(evaluation.class_names, row.label or 0)),
            "images": f"{row.num_train:,}",
            "share": row.fidelity.value if row.fidelity else None,
            "text": f"{100 * row.fidelity.value:.0f} %" if row.fidelity else "not judged",
        }
        for place, row in enumerate(ordered)
    ]
    scale = alt.Scale(domain=[0, 0.6, 1], range=[COLOUR[c] for c in ("few", "rule", "many")])
    legend = alt.Legend(format=".0%", gradientLength=160)
    chart = (
        layers(rows)
        .mark_rect(stroke=COLOUR["card"], strokeWidth=0.5)
        .encode(
            x=alt.X("column:O", axis=None),
            y=alt.Y("row:O", axis=None),
            color=alt.Color("share:Q", scale=scale, legend=legend, title=None),
            tooltip=tooltip(name="class", images="training images", text="label fidelity"),
        )
    )
    about = "row by row from the most frequent class to the rarest"
    height = max(110, 11 * -(-len(rows) // columns))
    return [Panel("Label fidelity, a square a class", about, chart, height)]


def guidance_panels(evaluation: Evaluation, beside: Evaluation | None) -> list[Panel]:
    """A panel a number over omega; none with a single strength, and none of those by class."""
    panels = []
    for title, better, measure in SET_MEASURES:
        ours = curve(evaluation.sets, measure)
        theirs = curve(beside.sets, measure) if beside else []
        if len({row["omega"] for row in ours}) > 1:
            chart = _guidance_chart(ours, theirs, better == LOWER, evaluation.best.omega)
            panels.append(Panel(title, better, chart, 170))
    return panels


def curve(
    sets: Sequence[SetResult], measure: Callable[[SetResult], Interval | float | None]
) -> list[Row]:
    """omega, value, low and high of every strength (a number) that has been measured."""
    return [
        {
            "omega": one.omega,
            "text": number(found) if isinstance(found, float) else with_interval(found),
            **ends(found),
        }
        for one in sets
        if not isinstance(one.omega, str) and (found := measure(one)) is not None
    ]


def _guidance_chart(ours: list[Row], theirs: list[Row], lower: bool, best_fid: Strength) -> Any:
    x = alt.X("omega:Q", title=OMEGA, scale=alt.Scale(zero=False, nice=False, padding=8))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False))
    tip = tooltip(omega=OMEGA, text="value")
    parts = []
    if not isinstance(best_fid, str):
        rule = layers([{"omega": best_fid}])
        parts = [rule.mark_rule(color=COLOUR["best"], strokeDash=[4, 3]).encode(x=x)]
    for rows, colour in ((theirs, COLOUR["other"]), (ours, COLOUR["run"])):
        if not rows:
            continue
        data = layers(rows)
        band = data.mark_area(color=colour, opacity=0.18)
        parts.append(band.encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q"))
        line = data.mark_line(color=colour, point={"color": colour, "size": 45})
        parts.append(line.encode(x=x, y=y, tooltip=tip))
    best = (min if lower else max)(ours, key=lambda row: float(row["value"]))
    ring = layers([best]).mark_point(size=170, color=COLOUR["ink"], strokeWidth=1.8)
    return alt.layer(*parts, ring.encode(x=x, y=y, tooltip=tip))
