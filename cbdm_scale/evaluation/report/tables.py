"""The tables of the page: groups of classes, every class, and label fidelity as a map."""

from collections.abc import Callable, Sequence
from html import escape

from cbdm_scale.evaluation.report.words import (
    KID_SCALE,
    badge,
    class_name,
    interval,
    name_html,
    percent_interval,
    scaled,
)
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.per_class import ClassScore

ALL_SHOWN = 40
"""Up to so many classes the table is not folded away."""
WORST, BEST = 20, 10
MAP_COLUMNS = 60
LEVELS = (0.2, 0.4, 0.6, 0.8, 0.95)


def pooled_table(best: SetResult, other: SetResult | None) -> str:
    """All, many, medium and few classes."""
    return _table(
        "Classes",
        [(_group_cell(row, best.table.classes), row) for row in best.table.pooled],
        other.table.pooled if other else (),
        pooled=True,
    )


def _group_cell(row: ClassScore, classes: Sequence[ClassScore]) -> str:
    members = [c.num_train for c in classes if row.group in (None, c.group)]
    if not members:
        return f"{badge(row.group)} <small>no class</small>"
    ends = (
        f"{min(members):,} to {max(members):,}" if min(members) < max(members) else members[0]
    )
    many = "class" if len(members) == 1 else "classes"
    return f"{badge(row.group)}<br><small>{len(members):,} {many} of {ends} images</small>"


def class_tables(evaluation: Evaluation, other: SetResult | None) -> str:
    """Every class, or the worst and the best of many and all of them folded away."""
    rows = evaluation.best.table.classes
    beside = other.table.classes if other else ()
    names = {row.label: _class_cell(evaluation, row) for row in rows}

    def table(some: Sequence[ClassScore]) -> str:
        return _table("Class", [(names[row.label], row) for row in some], beside)

    by_frequency = sorted(rows, key=lambda row: (-row.num_train, row.label or 0))
    if len(rows) <= ALL_SHOWN:
        return table(by_frequency)
    measure, by_value = _worst_first(rows)
    return (
        f'<div class="tables"><h3>Worst {WORST} by {measure}</h3>{table(by_value[:WORST])}'
        f"<h3>Best {BEST} by {measure}</h3>{table(by_value[::-1][:BEST])}</div>"
        f"<details><summary>All {len(rows):,} classes, most frequent first</summary>"
        f"{table(by_frequency)}</details>"
    )


def _worst_first(rows: Sequence[ClassScore]) -> tuple[str, list[ClassScore]]:
    """By KID, else by label fidelity, else by FID, whichever most classes have."""
    measures: tuple[tuple[str, Callable[[ClassScore], float | None]], ...] = (
        ("KID", lambda row: row.kid.value if row.kid else None),
        ("label fidelity", lambda row: -row.fidelity.value if row.fidelity else None),
        ("FID", lambda row: row.fid.value if row.fid else None),
    )
    counts = [sum(get(row) is not None for row in rows) for _, get in measures]
    name, get = measures[counts.index(max(counts))]
    known = [(value, row) for row in rows if (value := get(row)) is not None]
    return name, [row for _, row in sorted(known, key=lambda pair: -pair[0])]


def _class_cell(evaluation: Evaluation, row: ClassScore) -> str:
    name = class_name(evaluation.class_names, row.label or 0)
    shown = f'<span class="clamp name">{name_html(name)}</span>'
    return f'<span class="who">{shown}{badge(row.group)}</span>'


def _table(
    first: str,
    rows: Sequence[tuple[str, ClassScore]],
    beside: Sequence[ClassScore],
    pooled: bool = False,
) -> str:
    """A line a row: the first cell is given, the numbers follow."""
    scores = [row for _, row in rows]
    others = {(row.label, row.group): row for row in beside}
    fidelity = any(row.fidelity for row in scores)
    heads = [first, "training images", "KID × 1000"]
    heads += ["other run's"] if beside else []
    heads += ["FID"] + (["other run's"] if beside else [])
    heads += (["label fidelity"] + (["other run's"] if beside else [])) if fidelity else []
    top_kid = max((abs(row.kid.value) for row in scores if row.kid), default=0.0)
    top_fid = max((row.fid.value for row in scores if row.fid), default=0.0)
    lines = []
    for cell, row in rows:
        other = others.get((row.label, row.group))
        cells = [cell, f"{row.num_train:,}", _kid_cell(row.kid, top_kid, row.group)]
        cells += [_kid_cell(other.kid if other else None)] if beside else []
        cells.append(_fid_cell(row, top_fid))
        cells += [_fid_cell(other) if other else _none("none")] if beside else []
        if fidelity:
            cells.append(_share_cell(row.fidelity, row.group, bar=True))
            cells += [_share_cell(other.fidelity if other else None)] if beside else []
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{text}</th>" for text in heads)
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _kid_cell(kid: Interval | None, top: float = 0.0, group: str | None = None) -> str:
    if kid is None:
        return _none("none")
    value, ends = interval(scaled(kid, KID_SCALE))
    return f"{value}<small>{ends}</small>{_bar(kid.value, top, group)}"


def _fid_cell(row: ClassScore, top: float = 0.0) -> str:
    if row.fid is None:
        return _none("no FID", row.fid_missing or "no reason was given")
    value, ends = interval(row.fid)
    return f"{value}<small>{ends}</small>{_bar(row.fid.value, top, row.group)}"


def _share_cell(share: Interval | None, group: str | None = None, bar: bool = False) -> str:
    if share is None:
        return _none("none")
    value, ends = percent_interval(share)
    return f"{value}<small>{ends}</small>{_bar(share.value, 1.0 if bar else 0.0, group)}"


def _none(word: str, reason: str = "") -> str:
    title = f' title="{escape(reason)}"' if reason else ""
    return f'<span class="none"{title}>{word}</span>'


def _bar(value: float, top: float, group: str | None) -> str:
    """A bar of value / top of the cell; nothing where there is no scale."""
    if top <= 0:
        return ""
    width = 100 * min(max(value / top, 0.0), 1.0)
    return (
        f'<span class="track {group or "all"}">'
        f'<span class="bar" style="--w:{width:.0f}%"></span></span>'
    )


def fidelity_map(evaluation: Evaluation) -> str:
    """Label fidelity, a square a class, the most frequent first; for many classes."""
    rows = evaluation.best.table.classes
    if len(rows) <= ALL_SHOWN or not any(row.fidelity for row in rows):
        return ""
    ordered = sorted(rows, key=lambda row: (-row.num_train, row.label or 0))
    columns = min(MAP_COLUMNS, -(-len(ordered) // 4))
    squares = []
    for place, row in enumerate(ordered):
        y, x = divmod(place, columns)
        name = class_name(evaluation.class_names, row.label or 0)[:60]
        value = f"{percent_interval(row.fidelity)[0]}" if row.fidelity else "not judged"
        squares.append(
            f'<rect x="{10 * x}" y="{10 * y}" width="10" height="10" class="{_level(row)}">'
            f"<title>{escape(name)}: {value}, {row.num_train:,} training images</title></rect>"
        )
    height = -(-len(ordered) // columns) * 10
    return (
        '<figure class="card heat"><figcaption><h3>Label fidelity, a square a class</h3>'
        "<small>row by row from the most frequent class to the rarest</small></figcaption>"
        f'<svg viewBox="0 0 {columns * 10} {height}" role="img" '
        f'aria-label="Label fidelity of every class">{"".join(squares)}</svg>'
        f"{_map_key()}</figure>"
    )


def _level(row: ClassScore) -> str:
    if row.fidelity is None:
        return "hx"
    return f"h{sum(row.fidelity.value >= level for level in LEVELS)}"


def _map_key() -> str:
    ends = (0.0, *LEVELS, 1.0)
    return (
        '<div class="key">'
        + "".join(
            f'<span><svg viewBox="0 0 10 10"><rect width="10" height="10" class="h{i}"/></svg>'
            f"{100 * ends[i]:.0f} to {100 * ends[i + 1]:.0f} %</span>"
            for i in range(len(LEVELS) + 1)
        )
        + "</div>"
    )
