"""Pictures of diversity: precision and recall of distributions, copies of training images."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.evaluation.report.charts import (
    COLOUR,
    OTHER_RUN,
    Panel,
    Row,
    ends,
    layers,
    series_colour,
    tooltip,
)
from cbdm_scale.evaluation.report.formatting import interval, scaled
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.intervals import wilson


def prd_panels(found: SetResult, other: SetResult | None) -> list[Panel]:
    """Precision over recall of the distributions; none where there is no curve."""
    if not found.prd_precision:
        return []
    x = alt.X("recall:Q", scale=alt.Scale(domain=[0, 1]))
    y = alt.Y("precision:Q", scale=alt.Scale(domain=[0, 1]))
    names = {"this run": found} | ({OTHER_RUN: other} if other and other.prd_recall else {})
    colour = series_colour(
        **{n: COLOUR["run" if s is found else "other"] for n, s in names.items()}
    )
    rows = [
        {"series": name, "at": at, "recall": round(r, 4), "precision": round(p, 4)}
        for name, one in names.items()
        for at, (r, p) in enumerate(zip(one.prd_recall, one.prd_precision, strict=True))
        if at % 4 == 0  # 251 of 1,001 angles: a pixel apart at most
    ]
    marks = []
    for name, beta in (("F_8", 8.0), ("F_1/8", 1 / 8)):
        recall, precision = _largest_f(found, beta)
        marks.append({"name": name, "recall": recall, "precision": precision})
    tip = [alt.Tooltip("name:N", title="largest"), "recall:Q", "precision:Q"]
    tip[1:] = [alt.Tooltip(f"{field}:Q", format=".3f") for field in ("recall", "precision")]
    line = layers(rows).mark_line(strokeWidth=2.2)
    points = layers(marks).mark_point(filled=True, opacity=1, size=60, color=COLOUR["run"])
    chart = alt.layer(
        line.encode(x=x, y=y, color=colour, order="at:Q", tooltip=tip[1:]),
        points.encode(x=x, y=y, tooltip=tip),
        *(text.encode(x=x, y=y, text="name:N") for text in _names_apart(marks)),
    )
    return [Panel("Precision and recall of distributions", "", chart)]


def _names_apart(marks: Sequence[Row]) -> list[Any]:
    """The names of points of a unit square: inside of it, and none upon another."""
    places: list[tuple[float, float]] = []
    texts = []
    for mark in marks:
        x, y = float(mark["recall"]), float(mark["precision"])
        near = sum(abs(x - a) < 0.25 and abs(y - b) < 0.15 for a, b in places)
        places.append((x, y))
        align, dx = ("left", 7) if x < 0.3 else ("right", -7)
        dy = (-12 if y < 0.3 else 14) * (1 + near)
        texts.append(layers([mark]).mark_text(align=align, dx=dx, dy=dy, color=COLOUR["ink"]))
    return texts


def _largest_f(found: SetResult, beta: float) -> tuple[float, float]:
    """(recall, precision) where F_beta is largest along the curve."""

    def score(point: tuple[float, float]) -> float:
        recall, precision = point
        below = beta**2 * precision + recall
        return (1 + beta**2) * precision * recall / below if below else 0.0

    return max(zip(found.prd_recall, found.prd_precision, strict=True), key=score)


def copies_panels(evaluation: Evaluation) -> list[Panel]:
    """Share of near-copies by class group, beside that of real images not trained on."""
    rows = []
    sides = ("generated", evaluation.best.memorisation), ("real", evaluation.held_out_copies)
    for side, found in sides:
        for one in found:
            if one.copies is not None:
                share = scaled(wilson(one.copies, one.num_images), 100)
                group = one.group or "all"
                text = "{} % ({} %)".format(*interval(share))
                colour = COLOUR[group if side == "generated" else "other"]
                row = {"group": group, "side": side, "text": text, "colour": colour}
                rows.append({**row, **ends(share)})
    if not any(row["side"] == "generated" for row in rows):
        return []
    chance = any(row["side"] == "real" for row in rows)
    y = alt.Y("group:N", title=None, sort=["all", *GROUPS])
    dodge = alt.YOffset("side:N", sort=["generated", "real"])
    title = "% of images as close to a training image as a copy"
    x, bars = alt.X("value:Q", title=title), layers(rows)
    tip = tooltip(group="classes", side="images", text="near-copies")
    fill = alt.Color("colour:N", scale=None)
    chart = alt.layer(
        bars.mark_bar().encode(x=x, y=y, yOffset=dodge, color=fill, tooltip=tip),
        bars.mark_rule(color=COLOUR["ink"], strokeWidth=1.3).encode(
            x=alt.X("low:Q", title=title), x2="high:Q", y=y, yOffset=dodge, tooltip=tip
        ),
    )
    about = "grey: real images that were not trained on" if chance else ""
    return [Panel("Near-copies of training images", about, chart)]
