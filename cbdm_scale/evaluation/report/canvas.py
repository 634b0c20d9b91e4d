"""From a drawing to an inline SVG that follows light and dark mode, and to a PNG.

Drawn in the light colours; the SVG names each by its variable of the page's style sheet.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cbdm_scale.data.groups import Group

INK, MUTED, RULE, PAPER = "#1b2430", "#5f6b7a", "#dde2e9", "#fefefe"
GROUP_COLOURS: dict[Group | None, str] = {
    None: "#3d4a5c",
    "many": "#0b5cab",
    "medium": "#c28a12",
    "few": "#c2456b",
}
"""Blue, ochre, rose: told apart without red or green, and by lightness alone."""
GROUP_MARKERS: dict[Group, str] = {"many": "o", "medium": "D", "few": "^"}
OTHER = "#8a93a1"
"""The run that is compared with."""
BEST = "#11806a"
RUN = "#5546bd"
"""The evaluated run, where no classes are told apart."""

VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--card",
    OTHER: "--other",
    BEST: "--best",
    RUN: "--run",
    **{colour: f"--{group or 'all'}" for group, colour in GROUP_COLOURS.items()},
}

Draw = Callable[[Any], None]
"""Draws on matplotlib axes."""

STYLE = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.labelsize": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "path.simplify": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
}


@dataclass(frozen=True)
class Panel:
    """One small drawing of a picture."""

    title: str
    draw: Draw
    width: float = 4.4
    """Inches."""
    height: float = 3.0
    legend_above: bool = False


@dataclass(frozen=True)
class Picture:
    """Panels that belong together: each an SVG on the page, all of them one PNG."""

    name: str
    """Of the file, without its ending."""

    panels: tuple[Panel, ...]
    columns: int = 2


def svg(panel: Panel, name: str) -> str:
    """The panel as an <svg> element for the page; ``name`` keeps its ids apart."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(panel.width, panel.height), layout="constrained")
        figure.patch.set_alpha(0)
        panel.draw(figure.add_subplot())
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _for_page(buffer.getvalue(), panel.title)


def png(picture: Picture) -> bytes:
    """All panels side by side, with their titles, as a PNG file."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(picture.columns, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    width = columns * max(panel.width for panel in picture.panels)
    height = rows * (max(panel.height for panel in picture.panels) + 0.3)
    with matplotlib.rc_context({**STYLE, "axes.facecolor": "white"}):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        for place, panel in enumerate(picture.panels):
            axes = figure.add_subplot(rows, columns, place + 1)
            panel.draw(axes)
            pad = 24 if axes.get_legend() and panel.legend_above else 8
            axes.set_title(panel.title, fontsize=10, loc="left", weight="bold", pad=pad)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def _for_page(text: str, title: str) -> str:
    """Only the element, its colours by variable, its fonts the page's, its numbers short."""
    from html import escape

    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(?:[A-Za-z0-9.]+_)+\d+"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", text)
    text = re.sub(r"\n\s*", "\n", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip()
