"""The table of feature spaces: a row a score, a column a space, all of the best set."""

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.evaluation.report.formatting import (
    KID_SCALE,
    interval,
    percent,
    percent_interval,
    scaled,
)
from cbdm_scale.evaluation.report.missing import NAMES
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.intervals import Interval

Cell = tuple[str, str]
"""The number, and under it its interval and what real images score; "none", and why."""

BY_GROUP = "fid", "kid", "sliced_wasserstein", "recall"
"""Scores that have rows by group too."""
SHARES = ("fidelity", "copies")


def space_rows(evaluation: Evaluation) -> list[tuple[str, list[Cell]]]:
    """(score, a cell for each of ``evaluation.spaces``) of all that some space has.

    Empty where there is one space alone: the page has its numbers already.
    """
    if not evaluation.further:
        return []
    sides = [*zip(evaluation.best_by_space(), evaluation.spaces, strict=True)]
    rows = []
    for title, name in _scores():
        if any(name in found.named() for found, _ in sides):
            rows.append((title, [_cell(name, found, space.floor) for found, space in sides]))
    return rows


def _scores() -> list[tuple[str, str]]:
    """(what the page calls it, its name in ``SetResult.named``)."""
    scores = []
    for name, words in NAMES.items():
        title = f"{words} × {KID_SCALE}" if name == "kid" else words
        scores.append((title, "copies_all" if name == "memorisation" else name))
        if name in BY_GROUP:
            scores += [(f"{title}, {group}", f"{name}_{group}") for group in GROUPS]
    return scores


def _cell(name: str, found: SetResult, floor: SetResult | None) -> Cell:
    known, real = found.named(), floor.named() if floor else {}
    if name not in known:
        return "none", next((gap.reason for gap in found.missing if gap.name == name), "")
    text, ends = _written(name, known[name])
    words = [f"real ones: {_written(name, real[name])[0]}"] if name in real else []
    return text, "; ".join(filter(None, (ends, *words)))


def _written(name: str, value: Interval | float) -> Cell:
    """A number as the page writes it, and its interval."""
    value = value if isinstance(value, Interval) else Interval(value)
    if name.startswith(SHARES):
        return percent_interval(value) if value.is_known else (percent(value.value), "")
    if name.startswith("kid"):
        value = scaled(value, KID_SCALE)
    return interval(value)
