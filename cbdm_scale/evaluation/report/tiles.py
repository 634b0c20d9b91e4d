"""The numbers of the best set as tiles, each with its 95 % interval where it has one."""

from collections.abc import Callable
from dataclasses import dataclass

from cbdm_scale.evaluation.report.words import (
    KID_SCALE,
    interval,
    number,
    percent,
    percent_interval,
    scaled,
)
from cbdm_scale.evaluation.results import SetResult
from cbdm_scale.metrics.intervals import Interval

Value = Interval | float | None


@dataclass(frozen=True)
class Tile:
    """One number: its name, what it says, where it is."""

    name: str
    about: str
    value: Callable[[SetResult], Value]
    share: bool = False


TILES = (
    Tile("FID", "distance to the real images, lower is better", lambda s: s.fid),
    Tile(
        "KID × 1000",
        "the same, without bias for few images",
        lambda s: scaled(s.kid, KID_SCALE) if s.kid else None,
    ),
    Tile(
        "Label fidelity",
        "images that show the class asked for",
        lambda s: s.fidelity,
        share=True,
    ),
    Tile(
        "Inception Score",
        "± deviation over 10 splits, higher is better",
        lambda s: s.inception_score,
    ),
    Tile("Precision", "generated images that look real", lambda s: s.precision),
    Tile("Recall", "real images that could be made", lambda s: s.recall),
    Tile("Density", "precision, forgiving outliers", lambda s: s.density),
    Tile("Coverage", "real images with one made nearby", lambda s: s.coverage),
    Tile("F_8", "diversity", lambda s: s.f8),
    Tile("F_1/8", "fidelity", lambda s: s.f_eighth),
    Tile(
        "Near-copies",
        "of training images",
        lambda s: _copies(s),
        True,
    ),
)


def _copies(found: SetResult) -> float | None:
    return next((row.copies for row in found.memorisation if row.group is None), None)


def tiles_html(best: SetResult, other: SetResult | None) -> str:
    """A tile a number that is there, those with intervals large; the other run's beside it."""
    first: list[str] = []
    rest: list[str] = []
    for tile in TILES:
        value = tile.value(best)
        if value is not None:
            row = first if isinstance(value, Interval) else rest
            row.append(_tile(tile, value, tile.value(other) if other else None))
    return "".join(
        f'<div class="tiles {kind}">{"".join(tiles)}</div>'
        for kind, tiles in (("first", first), ("rest", rest))
        if tiles
    )


def _tile(tile: Tile, value: Value, beside: Value) -> str:
    big, ends = _text(value, tile.share)
    parts = [f'<div class="name">{tile.name}</div><div class="big">{big}</div>']
    if ends:
        parts.append(f'<div class="ends">{ends}</div>')
    if beside is not None:
        if isinstance(value, Interval) and isinstance(beside, Interval):
            parts.append(_strip(value, beside))
        big, ends = _text(beside, tile.share)
        parts.append(f'<div class="beside">other {big}{f" ({ends})" if ends else ""}</div>')
    parts.append(f'<div class="about">{tile.about}</div>')
    return f'<div class="card tile">{"".join(parts)}</div>'


def _text(value: Value, share: bool) -> tuple[str, str]:
    """(number, interval in words or nothing), safe for the page."""
    if isinstance(value, Interval):
        return percent_interval(value) if share else interval(value)
    assert value is not None, "only numbers that are there"
    return (percent(value) if share else number(value)).replace("<", "&lt;"), ""


def _strip(ours: Interval, theirs: Interval) -> str:
    """Both intervals over one axis, ours above: do they overlap?"""
    low, high = min(ours.low, theirs.low), max(ours.high, theirs.high)
    span = (high - low) or 1.0
    bars = "".join(
        f'<u style="left:{94 * (one.low - low) / span + 3:.1f}%;'
        f'width:{94 * (one.high - one.low) / span:.1f}%"></u>'
        for one in (ours, theirs)
    )
    return f'<span class="strip" aria-hidden="true">{bars}</span>'
