"""What an evaluation says at its end: the table on the console, and the numbers for MLflow."""

import json
from dataclasses import asdict
from typing import Any

from cbdm_scale.data.strength import as_text
from cbdm_scale.evaluation.cautions import cautions
from cbdm_scale.evaluation.report.formatting import KID_SCALE, scaled, with_interval
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.per_class import ClassScore

NONE = "-"


def table(evaluation: Evaluation) -> list[str]:
    """A line a guidance strength, then a line a group of the best one, then what is missing.

    Before them what makes the numbers unfair, where something does.
    """
    best = evaluation.best
    lines = [f"warning: {said}" for said in cautions(evaluation)]
    lines += [f"autoguidance, by {best.guide}"] if best.guide else []
    lines += _aligned(
        ["omega", "FID [95 %]", "KID x 1000 [95 %]", "recall", "F_8", "label kept"],
        [
            [
                as_text(found.omega),
                _interval(found.fid, "{:.2f}"),
                _kid(found.kid),
                _number(found.recall, "{:.3f}"),
                _number(found.f8, "{:.3f}"),
                _interval(found.fidelity, "{:.1%}"),
            ]
            for found in evaluation.sets
        ],
    )
    copies = {row.group: row.copies for row in best.memorisation}
    groups = [
        [
            row.group or "all",
            f"{row.num_train:,}",
            _interval(row.fid, "{:.2f}"),
            _kid(row.kid),
            _interval(row.fidelity, "{:.1%}"),
            _number(copies.get(row.group), "{:.1%}"),
        ]
        for row in best.table.pooled
    ]
    if groups:
        heads = [
            "group",
            "trained on",
            "FID [95 %]",
            "KID x 1000 [95 %]",
            "label kept",
            "copies",
        ]
        lines += [
            "",
            f"at omega {as_text(best.omega)}, the smallest FID:",
            *_aligned(heads, groups),
        ]
    chance = [row.copies for row in evaluation.held_out_copies if row.group is None]
    if chance and chance[0] is not None:
        lines.append(f"copies among real images that were not trained on: {chance[0]:.1%}")
    reasons: dict[str, list[str]] = {}
    for gap in best.missing:
        reasons.setdefault(gap.reason, []).append(gap.name)
    lines += [f"no {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    if best.prd_note:
        lines.append(f"F_8: {best.prd_note}")
    return lines


def _interval(found: Interval | None, form: str) -> str:
    if found is None:
        return NONE
    value, low, high = (form.format(v) for v in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _kid(found: Interval | None) -> str:
    """As the report writes it; its digits follow from the width of the interval."""
    return with_interval(scaled(found, KID_SCALE)) if found else NONE


def _number(found: float | None, form: str) -> str:
    return NONE if found is None else form.format(found)


def _aligned(heads: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [heads, *rows]
    ]


# ----------------------------------------------------------------------------
# For MLflow.


def per_class(evaluation: Evaluation) -> str:
    """KID, FID and fidelity of every class and strength, as JSON."""

    def plain(row: ClassScore) -> dict[str, Any]:
        label = row.label
        name = None if label is None else evaluation.class_names[label]
        return {"name": name, **asdict(row)}

    sets = [
        {"omega": found.omega, "classes": [plain(row) for row in found.table.classes]}
        for found in evaluation.sets
    ]
    return json.dumps({"id": evaluation.id, "sets": sets}, indent=1, allow_nan=False)
