"""Vega-Lite charts: one specification is drawn on the page and written as a PNG.

The colours of a specification are the light ones of ``PALETTE``; charts.js replaces them by the
dark ones where the reader's screen is dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt

from cbdm_scale.metrics.intervals import Interval

Row = dict[str, Any]
"""A row of a chart's data: field -> value."""
OTHER_RUN = "other run"
"""What charts call the run beside this one."""

PALETTE: Mapping[str, tuple[str, str]] = {
    "page": ("#f4f5f8", "#0e1218"),
    "card": ("#fefefe", "#171d26"),
    "ink": ("#1b2430", "#e8ecf2"),
    "muted": ("#5f6b7a", "#9ca7b6"),
    "rule": ("#dde2e9", "#2b3442"),
    "other": ("#8a93a1", "#8e99a9"),
    "best": ("#11806a", "#3fc7a3"),
    "run": ("#5546bd", "#a599ff"),
    "bad": ("#b3362b", "#ff8a7a"),
    "all": ("#3d4a5c", "#a9b6c8"),
    "many": ("#0b5cab", "#62aaf5"),
    "medium": ("#c28a12", "#e9b949"),
    "few": ("#c2456b", "#f7799c"),
}
"""Name -> its colour by day and by night.

many, medium and few are blue, ochre and rose: told apart without red or green, and by lightness
alone. ``run`` is the evaluated run, ``other`` the one that it is compared with.
"""
COLOUR = {name: light for name, (light, _) in PALETTE.items()}
HEIGHT = 230
WIDTH = 330
"""Pixels of a panel in a PNG; on the page a panel is as wide as its card."""

_AXIS = {
    "gridColor": COLOUR["rule"],
    "domainColor": COLOUR["rule"],
    "tickColor": COLOUR["rule"],
    "labelColor": COLOUR["muted"],
    "titleColor": COLOUR["muted"],
    "titleFontWeight": "normal",
    "labelOverlap": True,
    "tickCount": 6,
}
_LEGEND = {
    "orient": "top",
    "title": None,
    "labelColor": COLOUR["ink"],
    "symbolStrokeWidth": 2,
    "symbolOpacity": 1,
    "columnPadding": 12,
    "columns": 3,
}
THEME = {
    "background": None,
    "font": "system-ui, Segoe UI, Roboto, Helvetica, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": _AXIS,
    "legend": _LEGEND,
    "title": {"anchor": "start", "color": COLOUR["ink"], "subtitleColor": COLOUR["muted"]},
    "bar": {"color": COLOUR["run"]},
}


_OF_ALL = "$schema", "config", "datasets"
"""What a specification says once, and not for each of its charts."""


@dataclass(frozen=True)
class Panel:
    """One chart of a picture, with what stands above it."""

    title: str
    about: str
    chart: Any
    """``altair.Chart`` or layers of them, without a title and a width."""

    height: int = HEIGHT

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The specification of the chart as it is; tests check it, and no page does again."""
        found: dict[str, Any] = self.chart.to_dict(validate=False)
        return found

    def page_spec(self) -> dict[str, Any]:
        """The specification for the page: as wide as its card."""
        about = {"width": "container", "height": self.height, "config": THEME}
        return self.spec | about | {"autosize": {"type": "fit-x", "contains": "padding"}}


@dataclass(frozen=True)
class Picture:
    """Panels that belong together: side by side on the page, and in one PNG."""

    name: str
    """Of the file, without its ending."""

    panels: tuple[Panel, ...]
    columns: int = 3

    def png(self) -> bytes:
        """The panels with their titles as a PNG on white, two pixels to a point."""
        import vl_convert

        shown = [
            panel.spec
            | {"title": {"text": panel.title, "subtitle": panel.about}}
            | {"width": WIDTH, "height": panel.height}
            for panel in self.panels
        ]
        found = {
            "$schema": shown[0]["$schema"],
            "concat": [{k: v for k, v in s.items() if k not in _OF_ALL} for s in shown],
            "columns": self.columns,
            "resolve": {"scale": {"color": "independent", "shape": "independent"}},
            "datasets": {k: v for s in shown for k, v in s.get("datasets", {}).items()},
            "config": THEME | {"background": "white"},
        }
        return vl_convert.vegalite_to_png(found, scale=2)


def layers(rows: Sequence[Mapping[str, Any]]) -> Any:
    """An empty chart of some rows, from which the layers of a panel are made."""
    return alt.Chart({"values": list(rows)})


def tooltip(**fields: str) -> list[Any]:
    """What a mark tells under the pointer: its field -> the words before it."""
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in fields.items()]


def series_colour(**series: str) -> Any:
    """Colour by the field ``series``: its values in the order of the legend -> a colour."""
    scale = alt.Scale(domain=list(series), range=list(series.values()))
    return alt.Color("series:N", scale=scale, sort=None)


def log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten from the smallest positive value to the largest."""
    positive = [value for value in values if value > 0] or [1.0]
    steps = (m * 10.0**e for e in range(-6, 10) for m in (1, 2, 5))
    return [x for x in steps if min(positive) / 2 <= x <= 2 * max(positive)]


def ends(value: Interval | float) -> Row:
    """Value, low and high of a number with or without an interval, in six digits."""
    if not isinstance(value, Interval):
        value = Interval(value)
    if not value.is_known:
        value = Interval(value.value, value.value, value.value)
    ends = {"value": value.value, "low": value.low, "high": value.high}
    return {name: float(f"{x:.6g}") for name, x in ends.items()}
