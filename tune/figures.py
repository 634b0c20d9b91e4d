"""The pictures of a search: over each parameter, head against tail, importance, curves."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from cbdm_scale.evaluation.report.charts import (
    COLOUR,
    Panel,
    Picture,
    layers,
    log_ticks,
    series_colour,
    tooltip,
)
from cbdm_scale.evaluation.report.formatting import number, with_interval
from cbdm_scale.metrics.intervals import Interval
from tune.analysis import Finalist, mean_interval
from tune.objective import (
    WORDS,
    ObjectiveName,
    best_strength,
    best_values,
    front,
    numbers_of,
    scalar,
)
from tune.space import TAU, Range, Space
from tune.trials import Trial

Row = dict[str, Any]
CONTROL = "tau 0"


def pictures(
    space: Space,
    trials: Sequence[Trial],
    found: Sequence[Finalist],
    shares: dict[str, float],
    rungs: tuple[int, ...],
    objective: ObjectiveName,
) -> dict[str, Picture]:
    """Name -> picture of all that can be drawn of the trials.

    found: the finalists with their repetitions
    shares: parameter -> share of the objective's variance (``sampler.importance``)
    """
    panels = {
        "parameters": [
            _over(option, space, trials, found, rungs, objective)
            for option in sorted(space, key=lambda option: (option != TAU, option))
            if trials
        ],
        "curves": _curves(trials, rungs, objective),
        "front": _front(trials, rungs[-1], objective),
        "importance": _importance(shares),
        "strength": _strength(trials, rungs[-1]),
    }
    return {name: Picture(name, tuple(some), 2) for name, some in panels.items() if some}


def interval_of(values: Sequence[float]) -> Interval:
    """Mean and interval, or for a single value the value alone."""
    ends = mean_interval(values)
    return ends if len(values) > 1 else Interval(ends.value, ends.value, ends.value)


def _log_y(title: str, rows: Sequence[Row], field: str = "value") -> Any:
    axis = alt.Axis(values=log_ticks([row[field] for row in rows]), format="~g", title=title)
    return alt.Y(f"{field}:Q", scale=alt.Scale(type="log", nice=False, padding=10), axis=axis)


def _over(
    option: str,
    space: Space,
    trials: Sequence[Trial],
    found: Sequence[Finalist],
    rungs: tuple[int, ...],
    objective: ObjectiveName,
) -> Panel:
    """The objective over one parameter (Figure 5, Table 8)."""
    series = {f"{rungs[0]:,} images": COLOUR["other"], f"{rungs[-1]:,} images": COLOUR["run"]}
    rows: list[Row] = [
        {"x": t.params[option], "value": value, "series": name, "trial": t.id}
        | {"text": number(value)}
        for name, images in zip(series, (rungs[0], rungs[-1]), strict=True)
        for t in trials
        if t.at(images) and not t.is_control and option in t.params
        for value in [t.value(objective, images)]
    ]
    again: list[Row] = [
        {"x": one.trial.params[option], "series": "repeated", "trial": one.trial.id}
        | {"value": ends.value, "low": ends.low, "high": ends.high, "text": with_interval(ends)}
        for one in found
        if one.repetitions and not one.trial.is_control and option in one.trial.params
        for ends in [interval_of(one.scalars())]
    ]
    control = _control(trials, found, rungs[-1], objective)
    series |= {"repeated": COLOUR["best"]} if again else {}
    series |= {CONTROL: COLOUR["ink"]} if control else {}
    dimension = space[option]
    log = isinstance(dimension, Range) and dimension.log
    ticks: Row = {"values": log_ticks([row["x"] for row in rows]), "format": "~g"}
    scale = alt.Scale(nice=False, padding=12, **{"type": "log"} if log else {"zero": False})
    x = alt.X("x:Q", scale=scale, axis=alt.Axis(title=option, **ticks if log else {}))
    y = _log_y(WORDS[objective], [*rows, *again, *control])
    colour = series_colour(**series)
    told = [
        *tooltip(trial="trial", series="after", text="value"),
        alt.Tooltip("x:Q", title=option),
    ]
    parts = []
    if control:
        line = layers(control).mark_rule(strokeDash=[5, 3], strokeWidth=1.5)
        parts.append(
            line.encode(y=y, color=colour, tooltip=tooltip(series="trial", text="value"))
        )
    points = layers(rows).mark_point(filled=True, size=55, opacity=0.9)
    parts.append(points.encode(x=x, y=y, color=colour, tooltip=told))
    if again:
        ends = layers([row for row in again if row["low"] > 0]).mark_rule(strokeWidth=1.6)
        y_low = alt.Y("low:Q", title=WORDS[objective])
        parts.append(ends.encode(x=x, y=y_low, y2="high:Q", color=colour, tooltip=told))
        diamonds = layers(again).mark_point(filled=True, opacity=1, size=110, shape="diamond")
        parts.append(diamonds.encode(x=x, y=y, color=colour, tooltip=told))
    return Panel(option, "repeated ones with their intervals", alt.layer(*parts))


def _control(
    trials: Sequence[Trial], found: Sequence[Finalist], images: int, objective: ObjectiveName
) -> list[Row]:
    """DDPM's value: of its repetitions, or else of the best control that came to its end."""
    again = next((f for f in found if f.trial.is_control and f.repetitions), None)
    if again:
        ends = interval_of(again.scalars())
        return [{"value": ends.value, "series": CONTROL, "text": with_interval(ends)}]
    ended = [t.value(objective, images) for t in trials if t.is_control and t.at(images)]
    if not ended:
        return []
    return [{"value": min(ended), "series": CONTROL, "text": number(min(ended))}]


def _front(trials: Sequence[Trial], images: int, objective: ObjectiveName) -> list[Panel]:
    """FID of the many classes against that of the few, at the end."""
    rows: list[Row] = []
    for trial in trials:
        if (rung := trial.at(images)) is None:
            continue
        omega = best_strength(rung.scores, objective)
        scores = rung.scores[omega]
        if "fid_many" in scores and "fid_few" in scores:
            row = {"x": scores["fid_many"], "value": scores["fid_few"], "trial": trial.id}
            series = CONTROL if trial.is_control else "trials"
            rows.append({**row, "omega": omega, "series": series})
    if len(rows) < 2:
        return []
    best = sorted((rows[i] for i in front([(r["x"], r["value"]) for r in rows])), key=_by_x)
    x = alt.X("x:Q", title="FID of the many classes", scale=alt.Scale(zero=False, padding=12))
    y = alt.Y(
        "value:Q", title="FID of the few classes", scale=alt.Scale(zero=False, padding=12)
    )
    colour = series_colour(trials=COLOUR["run"], **{CONTROL: COLOUR["other"]})
    numbers = [
        alt.Tooltip(f"{f}:Q", title=t, format=".2f")
        for f, t in (("x", "many"), ("value", "few"))
    ]
    told = [*tooltip(trial="trial", omega="guidance omega"), *numbers]
    line = layers(best).mark_line(color=COLOUR["best"], strokeWidth=1.5)
    points = layers(rows).mark_point(filled=True, opacity=1, size=70)
    words = layers(best).mark_text(align="left", dx=7, dy=-6, color=COLOUR["ink"])
    chart = alt.layer(
        line.encode(x=x, y=y),
        points.encode(x=x, y=y, color=colour, tooltip=told),
        words.encode(x=x, y=y, text="trial:N"),
    )
    about = f"after {images:,} images, lower left is better; nothing beats those on the line"
    return [Panel("Head against tail", about, chart)]


def _by_x(row: Row) -> float:
    return float(row["x"])


def _importance(shares: dict[str, float]) -> list[Panel]:
    """How much of the objective's variance each parameter explains."""
    if not shares:
        return []
    rows = [{"name": name, "value": 100 * share} for name, share in shares.items()]
    x = alt.X("value:Q", title="% of the variance at the first rung (fANOVA)")
    y = alt.Y("name:N", title=None, sort="-x", axis=alt.Axis(labelLimit=220))
    told = ["name:N", alt.Tooltip("value:Q", title="%", format=".0f")]
    chart = layers(rows).mark_bar(color=COLOUR["run"]).encode(x=x, y=y, tooltip=told)
    return [Panel("Importance of each parameter", "", alt.layer(chart))]


def _curves(
    trials: Sequence[Trial], rungs: tuple[int, ...], objective: ObjectiveName
) -> list[Panel]:
    """The objective over images, a line a trial."""
    series = {"to the end": "run", "stopped": "other", CONTROL: "ink"}
    rows: list[Row] = [
        {
            "trial": trial.id,
            "images": rung.images,
            "value": value,
            "text": number(value),
            "series": CONTROL
            if trial.is_control
            else "to the end"
            if trial.status == "finished"
            else "stopped",
        }
        for trial in trials
        for rung in trial.rungs
        for value in [scalar(best_values(rung.scores, objective))]
    ]
    if not rows:
        return []
    x = alt.X("images:Q", title="training images", axis=alt.Axis(format="~s"))
    line = (
        layers(rows)
        .mark_line(point={"filled": True, "size": 40})
        .encode(
            x=x,
            y=_log_y(WORDS[objective], rows),
            color=series_colour(**{name: COLOUR[c] for name, c in series.items()}),
            detail="trial:N",
            tooltip=tooltip(
                trial="trial", series="how it ended", images="images", text="value"
            ),
        )
    )
    marks = layers([{"images": images} for images in rungs]).mark_rule(
        color=COLOUR["muted"], strokeDash=[1, 3]
    )
    return [Panel("Learning curves", "rungs dotted", alt.layer(marks.encode(x=x), line))]


def _strength(trials: Sequence[Trial], images: int) -> list[Panel]:
    """FID over the guidance strength at the end, a line a trial."""
    rows: list[Row] = [
        {
            "omega": float(omega),
            "value": rung.scores[omega]["fid"],
            "text": number(rung.scores[omega]["fid"]),
            "trial": trial.id,
            "series": CONTROL if trial.is_control else "trials",
        }
        for trial in trials
        if (rung := trial.at(images)) and len(numbers_of(rung.scores)) > 1
        for omega in numbers_of(rung.scores)
    ]
    if not rows:
        return []
    line = (
        layers(rows)
        .mark_line(point={"filled": True, "size": 40})
        .encode(
            x=alt.X("omega:Q", title="guidance omega", scale=alt.Scale(zero=False)),
            y=_log_y("FID", rows),
            color=series_colour(trials=COLOUR["many"], **{CONTROL: COLOUR["other"]}),
            detail="trial:N",
            tooltip=tooltip(trial="trial", omega="guidance omega", text="FID"),
        )
    )
    return [Panel("FID over guidance", "", alt.layer(line))]
