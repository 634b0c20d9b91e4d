"""Curves as a PNG file: panels side by side, a line a series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Name -> points (x, y)."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    x: str
    y: str
    series: Series
    log_x: bool = False
    log_y: bool = False

    def chart(self) -> Any:
        points = [
            {"x": x, "y": y, "series": name}
            for name, values in self.series.items()
            for x, y in values
        ]
        horizontal = altair.Scale(type="log", base=2) if self.log_x else altair.Scale()
        vertical = altair.Scale(type="log") if self.log_y else altair.Scale()
        lines = altair.Chart(altair.Data(values=points), title=self.title).mark_line(point=True)
        return lines.encode(
            x=altair.X("x:Q", title=self.x, scale=horizontal),
            y=altair.Y("y:Q", title=self.y, scale=vertical),
            color=altair.Color("series:N", title=None, sort=None),
        )


def save_png(panels: Sequence[Panel], columns: int, file: Path) -> None:
    """All panels, so many in a row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = altair.concat(*(panel.chart() for panel in panels), columns=columns)
    whole.save(str(file), format="png", scale_factor=2)
