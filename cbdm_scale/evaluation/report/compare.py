"""One run beside another: what may be compared, and which is better.

Better and worse are said only where the 95 % intervals do not overlap. An interval does not
hold the spread between training runs, and the page says so.
"""

from dataclasses import replace
from typing import Any

from cbdm_scale.data.groups import Group
from cbdm_scale.evaluation.report.claims import Claim, pooled_row
from cbdm_scale.evaluation.report.formatting import (
    apart,
    interval,
    kid_1000,
    percent_interval,
)
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.per_class import ClassScore, ClassTable

DEPEND_ON_NUMBER = ("fid", "sliced_wasserstein", "fld", "inception_score") + (
    *("precision", "recall", "density", "coverage", "f8", "f_eighth"),
)
"""Fields of ``SetResult`` that do not compare between sets of unequal numbers of images."""


def comparison(evaluation: Evaluation, against: Evaluation) -> tuple[Claim, ...]:
    """This run beside another, each at its best guidance; no verdict where none is fair."""
    reasons = incomparable(evaluation, against)
    if reasons:
        text = f"Not compared with {against.run}: {'; '.join(reasons)}."
        return (Claim("note", text),)
    ours, theirs = evaluation.best, against.best
    claims: list[Claim | None] = [*_unlike(evaluation, against)]
    if ours.num_images == theirs.num_images:
        claims.append(_verdict("FID", ours.fid, theirs.fid, lower=True))
    else:
        claims.append(
            Claim(
                "note",
                f"FID is not compared, it depends on the number of images: "
                f"{ours.num_images:,} here, {theirs.num_images:,} there.",
            )
        )
    claims.append(_verdict("KID × 1000", kid_1000(ours.kid), kid_1000(theirs.kid), lower=True))
    rare = [row.kid if (row := pooled_row(s, "few")) else None for s in (ours, theirs)]
    claims.append(
        _verdict("KID × 1000 of rare classes", kid_1000(rare[0]), kid_1000(rare[1]), lower=True)
    )
    shares = ours.fidelity, theirs.fidelity
    claims.append(_verdict("Label fidelity", *shares, lower=False, share=True))
    return tuple(claim for claim in claims if claim)


def _unlike(evaluation: Evaluation, against: Evaluation) -> list[Claim]:
    """What differs between the two networks besides what is to be compared, a note each."""
    claims, seen = [], (evaluation.trained_images, against.trained_images)
    if seen[0] != seen[1]:
        words = ["an unknown number" if n is None else f"{n:,}" for n in seen]
        text = f"Of training images this network has seen {words[0]}, the other {words[1]}"
        claims.append(Claim("note", f"{text}: a difference may be one of length alone."))
    pairs = {
        "weights": (evaluation.weights, against.weights),
        "guidance": (evaluation.best.guidance_mode, against.best.guidance_mode),
    }
    for what, (ours, theirs) in pairs.items():
        if ours != theirs:
            claims.append(Claim("note", f"Other {what}: {ours} here, {theirs} there."))
    return claims


def incomparable(evaluation: Evaluation, against: Evaluation) -> tuple[str, ...]:
    """Why no number of one says anything about the other; empty where they compare."""
    ours, theirs = _conditions(evaluation), _conditions(against)
    return tuple(
        f"{what} ({ours[what]} here, {theirs[what]} there)"
        for what in ours
        if ours[what] != theirs[what]
    )


def _conditions(evaluation: Evaluation) -> dict[str, str]:
    """What differs, if it does -> what it is here."""
    one = evaluation
    return {
        "features of other weights": f"{one.extractor} {one.extractor_fingerprint}",
        "another resize rule": one.resize,
        "another data set": f"{one.dataset} {one.dataset_fingerprint}",
        "another number of real images": f"{one.num_real:,}",
        "other weights of the real images": "by class" if one.weighed else "none",
    }


def _verdict(
    name: str,
    ours: Interval | None,
    theirs: Interval | None,
    *,
    lower: bool,
    share: bool = False,
) -> Claim | None:
    """Better, worse, or intervals that overlap; None where a number is missing."""
    if ours is None or theirs is None:
        return None
    write = percent_interval if share else interval
    (a, a_ends), (b, b_ends) = write(ours), write(theirs)
    numbers = f"{a} ({a_ends}) here, {b} ({b_ends}) there"
    if not apart(ours, theirs):
        return Claim("even", f"{name} does not tell them apart: {numbers}; intervals overlap.")
    better = (ours.value < theirs.value) == lower
    word = "better" if better else "worse"
    return Claim("good" if better else "bad", f"{name} is {word}: {numbers}.")


def fair(evaluation: Evaluation, against: Evaluation) -> Evaluation | None:
    """The other evaluation with only the numbers that may stand beside this one's.

    None where nothing compares. Of another number of images, KID and label fidelity remain.
    """
    if incomparable(evaluation, against):
        return None
    best = evaluation.best
    return replace(against, sets=tuple(_fair_set(best, other) for other in against.sets))


def _fair_set(best: SetResult, other: SetResult) -> SetResult:
    mine = {(row.label, row.group): row.fid_images for row in _rows(best.table)}
    table = ClassTable(
        tuple(_fair_row(row, mine) for row in other.table.classes),
        tuple(_fair_row(row, mine) for row in other.table.pooled),
    )
    if best.num_images == other.num_images:
        return replace(other, table=table)
    nothing: dict[str, Any] = dict.fromkeys(DEPEND_ON_NUMBER, None)
    return replace(other, table=table, prd_precision=(), prd_recall=(), **nothing)


def _rows(table: ClassTable) -> tuple[ClassScore, ...]:
    return (*table.classes, *table.pooled)


def _fair_row(
    row: ClassScore, mine: dict[tuple[int | None, Group | None], tuple[int, int] | None]
) -> ClassScore:
    if row.fid is None or mine.get((row.label, row.group)) == row.fid_images:
        return row
    return replace(row, fid=None, fid_images=None, fid_missing="of another number of images")
