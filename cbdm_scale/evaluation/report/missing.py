"""What could not be computed, and why, in words."""

from collections import Counter

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.data.guidance_strength import Strength, as_text
from cbdm_scale.evaluation.results import Evaluation, SetResult

NAMES = {
    "fid": "FID",
    "kid": "KID",
    "sliced_wasserstein": "Sliced Wasserstein distance",
    "fld": "FLD",
    "inception_score": "Inception Score",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "f8": "F_8",
    "f_eighth": "F_1/8",
    "prd_precision": "PRD curve",
    "fidelity": "Label fidelity",
    "memorisation": "Near-copies of training images",
}
"""Field of ``SetResult`` -> what the page calls it."""
REASONS_SHOWN = 6
NO_REASON = "not computed, and no reason was given"


def missing_words(evaluation: Evaluation) -> tuple[str, ...]:
    """A line a missing number and reason; with the strengths where it is not missing at all."""
    found: dict[tuple[str, str], list[Strength]] = {}
    for one in evaluation.sets:
        for name, reason in _missing(one):
            found.setdefault((name, reason), []).append(one.omega)
    lines = []
    for (name, reason), omegas in found.items():
        where = ""
        if len(omegas) < len(evaluation.sets):
            where = f" (at guidance {', '.join(map(as_text, omegas))})"
        lines.append(f"{name}: {reason}{where}")
    if not evaluation.held_out_copies:
        lines.append("What chance gives for near-copies: no real images were held out for it")
    return (*lines, *_classes(evaluation))


def _missing(one: SetResult) -> list[tuple[str, str]]:
    """(name, reason) of all that is None or empty, and of what else is told."""
    reasons = {missing.name: missing.reason for missing in one.missing}
    found = []
    for field, name in NAMES.items():
        value = getattr(one, field)
        if value is None or value == ():
            found.append((name, reasons.pop(field, NO_REASON)))
    told = [(NAMES.get(n, n.replace("_", " ")), reason) for n, reason in reasons.items()]
    return found + told


def _classes(evaluation: Evaluation) -> list[str]:
    """Classes without an FID, counted by reason, and groups that hold no class."""
    table = evaluation.best.table
    reasons = Counter(
        row.fid_missing or NO_REASON for row in table.classes if row.fid is None
    ).most_common()
    lines = [
        f"FID of {count:,} {'class' if count == 1 else 'classes'}: {reason}"
        for reason, count in reasons[:REASONS_SHOWN]
    ]
    rest = sum(count for _, count in reasons[REASONS_SHOWN:])
    if rest:
        lines.append(f"FID of {rest:,} more classes: see the table")
    without_kid = sum(row.kid is None for row in table.classes)
    if without_kid:
        lines.append(f"KID of {without_kid:,} classes: fewer than 2 images on a side")
    empty = [g for g in GROUPS if not any(row.group == g for row in table.classes)]
    lines += [f"Scores of the group {group}: no class is in it" for group in empty]
    return lines
