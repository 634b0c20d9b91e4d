"""What an evaluation says, in sentences: each is decided by the intervals of its numbers.

Two numbers are called different only where their 95 % intervals do not overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cbdm_scale.data.groups import Group
from cbdm_scale.data.guidance_strength import as_text
from cbdm_scale.evaluation.cautions import (
    beyond_chance,
    collapsed_to,
    is_chance,
    noise_warning,
)
from cbdm_scale.evaluation.report.formatting import (
    KID_SCALE,
    apart,
    number,
    percent,
    scaled,
    with_interval,
)
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.per_class import ClassScore

Kind = Literal["note", "good", "bad", "even"]
PAPER_IMAGES = 50_000
MUCH_COPIED = 0.1
"""Share of near-copies that the headline speaks of."""
SIMILAR_SIZES = 1.25
"""FIDs of two numbers of images are set in relation up to this ratio of the numbers."""


@dataclass(frozen=True)
class Claim:
    """A sentence, and how it should look: good, bad, even (within noise), or a note."""

    kind: Kind
    text: str


def headline(evaluation: Evaluation) -> str:
    """One sentence: FID, the rare classes beside the frequent ones, label fidelity."""
    best = evaluation.best
    at = f" at guidance {as_text(best.omega)}" if len(evaluation.sets) > 1 else ""
    if best.fid:
        parts = [f"FID {with_interval(best.fid)}{at}"]
    elif best.kid:
        parts = [f"KID × 1000 {with_interval(scaled(best.kid, KID_SCALE))}{at}, no FID"]
    else:
        parts = ["neither FID nor KID could be computed"]
    parts.append(_rare_and_frequent(best))
    if best.fidelity:
        share = percent(best.fidelity.value)
        collapsed = collapsed_to(best)
        guessed = ", as a guess would" if is_chance(best, len(evaluation.class_names)) else ""
        if collapsed is not None:
            shows = percent(best.shown[collapsed] / sum(best.shown))
            guessed += (
                f", {shows} show {evaluation.class_names[collapsed]!r} whatever was asked"
            )
        parts.append(f"{share} of images show the class that was asked for{guessed}")
    if copied := much_copied(evaluation):
        parts.append(f"{percent(copied)} are near-copies of training images")
    sentence = "; ".join(part for part in parts if part)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _rare_and_frequent(best: SetResult) -> str:
    """The few classes beside the many; whether they differ is decided by KID's intervals."""
    few, many = pooled_row(best, "few"), pooled_row(best, "many")
    if not few or not many or not few.kid or not many.kid:
        return ""
    a, b, unit = KID_SCALE * few.kid.value, KID_SCALE * many.kid.value, "KID × 1000 "
    if _fids_compare(few, many):
        assert few.fid is not None and many.fid is not None, "else they do not compare"
        if (few.fid.value > many.fid.value) == (a > b):
            a, b, unit = few.fid.value, many.fid.value, "" if best.fid else "FID "
    rare = f"rare classes are at {unit}{number(a)}"
    if not apart(few.kid, many.kid):
        return f"{rare}, frequent ones at {number(b)}, a difference that noise explains"
    if b > 0 and a / b >= 1.5:
        times = f"{a / b:.1f}" if a / b < 9.95 else f"{a / b:,.0f}"
        return f"{rare}, {times} times the frequent ones at {number(b)}"
    return f"{rare}, {'worse' if a > b else 'better'} than frequent ones at {number(b)}"


def pooled_row(found: SetResult, group: Group | None) -> ClassScore | None:
    """The row of all classes of a group."""
    return next((row for row in found.table.pooled if row.group == group), None)


def _fids_compare(a: ClassScore, b: ClassScore) -> bool:
    """Whether both have an FID, of about as many images."""
    if a.fid is None or b.fid is None or not a.fid_images or not b.fid_images:
        return False
    sizes = min(a.fid_images), min(b.fid_images)
    return max(sizes) <= SIMILAR_SIZES * min(sizes)


def much_copied(evaluation: Evaluation) -> float:
    """Share of near-copies among all images where it is a tenth or more, no chance; else 0."""
    held = {row.group: row for row in evaluation.held_out_copies}
    for row in evaluation.best.memorisation:
        if row.group is None and beyond_chance(row, held.get(None)):
            return row.copies if row.copies and row.copies >= MUCH_COPIED else 0.0
    return 0.0


def copying(evaluation: Evaluation) -> Claim | None:
    """Whether more images are near-copies of training images than chance explains."""
    best = evaluation.best
    chance = {row.group: row for row in evaluation.held_out_copies}
    found = [
        (row, chance.get(row.group)) for row in best.memorisation if row.copies is not None
    ]
    if not found:
        return None
    if not any(held and held.copies is not None for _, held in found):
        share = percent(found[0][0].copies or 0.0)
        return Claim(
            "note",
            f"{share} of images lie as close to a training image as a copy does; what chance "
            "gives is not known, no real images were held out.",
        )
    more = [pair for pair in found if beyond_chance(*pair)]
    if not more:
        kind: Kind = "note" if noise_warning(evaluation) else "good"
        return Claim(kind, "No group of classes holds more near-copies than chance gives.")
    row, held = more[-1]
    assert held is not None, "else it is not above chance"
    who = {"few": "rare", "medium": "medium", "many": "frequent"}.get(row.group or "", "all")
    return Claim(
        "bad",
        f"More copies than chance gives: {percent(row.copies or 0.0)} of the images of {who} "
        "classes lie as close to a training image as a copy does, "
        f"{percent(held.copies or 0.0)} of real images that were not trained on.",
    )


def scope(evaluation: Evaluation) -> Claim:
    """What the numbers compare with, and with what not."""
    kind = evaluation.extractor.partition(":")[0]
    made = sorted({s.num_images for s in evaluation.sets})
    images = f"{' or '.join(f'{n:,}' for n in made)} generated images against "
    images += f"{evaluation.num_real:,} real ones"
    if kind == "classifier":
        text = (
            f"Features are the small classifier's: these numbers compare with no paper, only "
            f"with evaluations by the same classifier. {images}."
        )
    elif kind == "inception":
        text = f"Inception features, resize rule {evaluation.resize}, {images}: "
        text += _inception_scope(evaluation.resize, made)
    else:
        text = (
            f"Features of {evaluation.extractor}, not Inception's: they compare with no FID in "
            f"the paper. Resize rule {evaluation.resize}, {images}."
        )
    return Claim("note", text)


def _inception_scope(resize: str, made: Sequence[int]) -> str:
    rules = {"tf1": "torch-fidelity's", "bicubic": "clean-fid's"}
    if resize in rules:
        return f"FIDs compare with {rules[resize]} of as many images, not with the paper's."
    if min(made) < PAPER_IMAGES:
        return (
            f"FIDs compare with others of as many images, not with those of {PAPER_IMAGES:,}, "
            "which are lower."
        )
    return "FIDs compare with the paper's where the real images are the same."
