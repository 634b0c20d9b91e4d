"""What an evaluation says at its end: the table on the console."""

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.data.guidance_strength import as_text
from cbdm_scale.evaluation.cautions import cautions, chance
from cbdm_scale.evaluation.report.claims import copying, much_copied
from cbdm_scale.evaluation.report.formatting import KID_SCALE, scaled, with_interval
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.per_class import CLASS_MEASURES, ClassScore

NONE = "-"


SET_HEADS = "omega", "FID [95 %]", "KID x 1000 [95 %]", "sliced W [95 %]", "FLD [95 %]"
GROUP_HEADS = "group", "trained on", *SET_HEADS[1:], "recall", "label kept", "copies"
REAL, GUESS, SHUFFLED = "real", "guess", "shuffled"
"""Rows of what real images score in the place of the generated ones, and of chance: a guess of
the label, and real images with their labels shuffled."""


def table(evaluation: Evaluation) -> list[str]:
    """A line a guidance strength, then a line a group of the best one, then what is missing.

    Before them what makes the numbers unfair, where something does; under them what real
    images score, and chance.
    """
    best, floor = evaluation.best, evaluation.floor
    lines = [f"warning: {said}" for said in cautions(evaluation)]
    copied = copying(evaluation)
    lines += [f"warning: {copied.text}"] if copied and much_copied(evaluation) else []
    lines += [f"autoguidance, by {best.guide}"] if best.guide else []
    rows = [
        [as_text(found.omega), *_distances(found), *_shares(found)] for found in evaluation.sets
    ]
    if floor:
        rows.append([REAL, *_distances(floor, fld="0"), *_shares(floor)])
    if best.fidelity:
        by_chance = chance(best, len(evaluation.class_names))
        rows.append([GUESS, *[NONE] * 6, f"{by_chance:.1%}"])
    lines += _aligned([*SET_HEADS, "recall", "F_8", "label kept"], rows)
    groups = _groups(evaluation)
    if groups:
        lines += [
            "",
            f"at omega {as_text(best.omega)}, the smallest FID:",
            *_aligned(list(GROUP_HEADS), groups),
        ]
    lines += _spaces(evaluation)
    held_out = [row.copies for row in evaluation.held_out_copies if row.group is None]
    if held_out and held_out[0] is not None:
        lines.append(f"copies among real images that were not trained on: {held_out[0]:.1%}")
    if floor:
        lines.append(
            f"{REAL}: {floor.num_images:,} real images in the place of the generated ones, "
            f"against the other {evaluation.num_real - floor.num_images:,}; what is no larger "
            "cannot be told from real"
        )
    if evaluation.shuffled:
        lines.append(f"{SHUFFLED}: the same images with their labels shuffled, which is chance")
    reasons: dict[str, list[str]] = {}
    for gap in best.missing:
        reasons.setdefault(gap.reason, []).append(gap.name)
    lines += [f"no {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    if best.prd_note:
        lines.append(f"F_8: {best.prd_note}")
    return lines


def _spaces(evaluation: Evaluation) -> list[str]:
    """FID of the best set in every feature space, a line a space; nothing of one alone."""
    if not evaluation.further:
        return []
    heads = "features", "FID all [95 %]", *GROUPS, REAL, "smallest at omega"
    rows = []
    for space, found in zip(evaluation.spaces, evaluation.best_by_space(), strict=True):
        by_group = {row.group: row.fid for row in found.table.pooled}
        fids = found.fid, *(by_group.get(g) for g in GROUPS), space.floor and space.floor.fid
        numbers = [_interval(fid or None, "{:.2f}") for fid in fids]
        rows.append([space.extractor, *numbers, as_text(space.best.omega)])
    omega = as_text(evaluation.best.omega)
    return [
        "",
        f"FID in each feature space, at omega {omega}:",
        *_aligned(list(heads), rows),
        "",
    ]


def _distances(found: SetResult | ClassScore, fld: str = "") -> list[str]:
    """FID, KID, the sliced distance and FLD, or what takes its place."""
    return [
        _interval(found.fid, "{:.2f}"),
        _kid(found.kid),
        _interval(found.sliced_wasserstein, "{:.2f}"),
        fld or _interval(found.fld, "{:.1f}"),
    ]


def _shares(found: SetResult) -> list[str]:
    return [
        _number(found.recall, "{:.3f}"),
        _number(found.f8, "{:.3f}"),
        _interval(found.fidelity, "{:.1%}"),
    ]


def _groups(evaluation: Evaluation) -> list[list[str]]:
    """A row a group and what real images score there, the mean of classes, the worst one."""
    best = evaluation.best
    real, shuffled = (
        {row.group: row for row in known.table.pooled} if known else {}
        for known in (evaluation.floor, evaluation.shuffled)
    )
    held_out = {row.group: row.copies for row in evaluation.held_out_copies}
    copies = {row.group: row.copies for row in best.memorisation}

    def line(name: str, row: ClassScore, copied: float | None, fld: str = "") -> list[str]:
        return [
            name,
            f"{row.num_train:,}",
            *_distances(row, fld),
            _number(row.recall, "{:.3f}"),
            _interval(row.fidelity, "{:.1%}"),
            _number(copied, "{:.1%}"),
        ]

    rows = []
    for row in best.table.pooled:
        rows.append(line(row.group or "all", row, copies.get(row.group)))
        if row.group in real and row.num_real:
            rows.append(line(REAL, real[row.group], held_out.get(row.group), "0"))
        if row.group in shuffled and row.num_real:
            rows.append(line(SHUFFLED, shuffled[row.group], None))
    if best.table.classes:
        macro, worst = (
            [_of_classes(best, name, kind) for name in CLASS_MEASURES]
            for kind in ("macro", "worst")
        )
        for name, (kid, fid, sliced, fld, kept) in (("mean", macro), ("worst class", worst)):
            rows.append([name, NONE, fid, kid, sliced, fld, NONE, kept, NONE])
    return rows


def _of_classes(best: SetResult, name: str, kind: str) -> str:
    """The mean of a number over the classes, or that of the worst class."""
    found = best.scores.get(f"{kind}_{name}")
    if found is None:
        return NONE
    if name == "kid":
        return _kid(Interval(found))
    return ("{:.1%}" if name == "fidelity" else "{:.2f}").format(found)


def _interval(found: Interval | None, form: str) -> str:
    if found is None:
        return NONE
    if not found.is_known:
        return form.format(found.value)
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
