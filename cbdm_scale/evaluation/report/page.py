"""The page of an evaluation: one HTML file that loads nothing, and its pictures as PNGs."""

from collections.abc import Callable
from pathlib import Path

from cbdm_scale.evaluation.cautions import cautions, chance
from cbdm_scale.evaluation.report.claims import Claim, copying, headline, scope
from cbdm_scale.evaluation.report.compare import comparison, fair
from cbdm_scale.evaluation.report.figures import pictures
from cbdm_scale.evaluation.report.formatting import class_name
from cbdm_scale.evaluation.report.images import ReportImages, data_url
from cbdm_scale.evaluation.report.missing import missing_words
from cbdm_scale.evaluation.report.rendering import render_page
from cbdm_scale.evaluation.report.spaces import space_rows
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.per_class import ClassScore

FOLDED = 12
"""With more classes the table of all is folded away."""
WORST, BEST = 10, 5
"""Rows that are shown then."""
LISTED = 1_000
"""Rows of the table at most: the rarest classes and the most frequent; metrics.json has all."""


def write_report(
    evaluation: Evaluation,
    images: ReportImages | None,
    out: Path,
    against: Evaluation | None = None,
) -> list[Path]:
    """Write report.html and its PNGs into the folder ``out``; gives their paths, page first.

    images: of some classes, to be shown; None leaves them out
    against: the evaluation of another run, drawn beside this one as far as the two compare
    """
    out.mkdir(parents=True, exist_ok=True)
    beside = fair(evaluation, against) if against else None
    drawn = pictures(evaluation, beside)
    claims = [Claim("bad", said) for said in cautions(evaluation)]
    claims += comparison(evaluation, against) if against else ()
    claims += [claim for claim in (copying(evaluation), scope(evaluation)) if claim]
    classes = evaluation.best.table.classes
    measure, by_value = _worst_first(classes) if len(classes) > FOLDED else ("", [])
    labels = {row.label or 0 for row in classes} | set(images.classes if images else ())
    by_frequency = sorted(classes, key=lambda row: (-row.num_train, row.label or 0))
    if len(classes) > LISTED:
        by_frequency = by_frequency[: LISTED // 2] + by_frequency[-LISTED // 2 :]
    page = render_page(
        "report.html.j2",
        drawn,
        evaluation=evaluation,
        best=evaluation.best,
        against=against,
        beside=beside,
        other=beside.best if beside else None,
        other_rows={(row.label, row.group): row for row in _rows(beside)},
        headline=headline(evaluation),
        claims=claims,
        missing=missing_words(evaluation),
        space_rows=space_rows(evaluation),
        images=images,
        data_url=data_url,
        copies=_copies,
        chance=chance(evaluation.best, len(evaluation.class_names)),
        names={c: class_name(evaluation.class_names, c) for c in labels},
        by_frequency=by_frequency,
        measure=measure,
        worst=by_value[:WORST],
        top=by_value[::-1][:BEST],
    )
    files = {"report.html": page.encode()}
    files |= {f"{name}.png": picture.png() for name, picture in drawn.items()}
    files |= images.grid_files() if images else {}
    for name, data in files.items():
        (out / name).write_bytes(data)
    return [out / name for name in files]


def _rows(beside: Evaluation | None) -> tuple[ClassScore, ...]:
    return (*beside.best.table.classes, *beside.best.table.pooled) if beside else ()


def _copies(found: SetResult | None) -> float | None:
    """Share of near-copies among all images of a set."""
    rows = found.memorisation if found else ()
    return next((row.copies for row in rows if row.group is None), None)


def _worst_first(rows: tuple[ClassScore, ...]) -> tuple[str, list[ClassScore]]:
    """By KID, else by label fidelity, else by FID, whichever most classes have."""
    measures: dict[str, Callable[[ClassScore], float | None]] = {
        "KID": lambda row: row.kid.value if row.kid else None,
        "label fidelity": lambda row: -row.fidelity.value if row.fidelity else None,
        "FID": lambda row: row.fid.value if row.fid else None,
    }
    known = {
        name: [(value, row) for row in rows if (value := get(row)) is not None]
        for name, get in measures.items()
    }
    name = max(known, key=lambda name: len(known[name]))
    return name, [row for _, row in sorted(known[name], key=lambda pair: -pair[0])]
