"""What makes an evaluation's numbers mean less than they seem to, in sentences.

The real images may have other class frequencies than the generated ones, and what is generated
may be noise, which some numbers do not see.
"""

from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.intervals import wilson
from cbdm_scale.metrics.memorisation import GroupMemorisation

REFERENCE_TAG = "reference_warning"
"""Of a run in MLflow: what ``reference_warning`` says."""
TOLERANCE = 0.1
"""Share of the images that may be of other classes than on the other side."""
MOST_OF_THEM = 0.5
"""Share of the images that show one class, of a set that has collapsed to it."""
HIGH_PRECISION, LOW_COVERAGE = 0.5, 0.1
"""Precision above, with coverage below, is of images that all lie in the same few places."""


def imbalance(real: Sequence[int], made: Sequence[int]) -> float:
    """Total variation distance between the shares of the classes, 0 to 1.

    It is the share of the images on one side that would have to change their class.
    """
    if not sum(real) or not sum(made):
        return 0.0
    pairs = zip(real, made, strict=True)
    return sum(abs(a / sum(real) - b / sum(made)) for a, b in pairs) / 2


def counts_to_weigh(real: Sequence[int]) -> Sequence[int] | None:
    """Real images of each class (K,) where they must be weighed by class; else None."""
    return real if imbalance(real, [1] * len(real)) > TOLERANCE else None


def needs_weights(real: Tensor, made: Tensor, num_classes: int) -> bool:
    """Whether the real images must be weighed by class: their labels (N,), those made (M,)."""
    if (made < 0).any():
        return False
    sizes = [torch.bincount(y.cpu(), minlength=num_classes).tolist() for y in (real, made)]
    return imbalance(*sizes) > TOLERANCE


def reference_warning(
    real: Sequence[int], made: Sequence[int], train: Sequence[int], weighed: bool = True
) -> str:
    """A sentence where the real images have other class frequencies than the generated ones.

    Counts by class (K,) of the eval split, the generated images, the training images; whether
    the real images are weighed by class. "" if the reference is fair.
    """
    share = imbalance(real, made)
    if share <= TOLERANCE:
        return ""
    if counts_to_weigh(real) is None:
        return (
            f"The generated images have from {max(made):,} down to {min(made):,} a class, and "
            f"{share:.0%} of them would have to be of another class to match the real ones, "
            "which have about as many of each: FID, KID, precision and recall over all classes "
            "count that too. Read the numbers by class, or judge as many images of each class."
        )
    itself = " (they are the training images)" if list(real) == list(train) else ""
    said = (
        f"The real images have from {max(real):,} down to {min(real):,} a class{itself}, "
        "unlike the generated ones: "
    )
    if weighed:
        said += (
            "they are weighed so that each class counts alike, and FID rewards no network that "
            "neglects rare classes. What few images say of a rare class stays uncertain. "
        )
    else:
        said += (
            "FID, KID, precision and recall over all classes reward a network that neglects "
            "rare classes. "
        )
    return (
        f"{said}Read the numbers by group and by class, or prepare the data set with a "
        "balanced --eval-source."
    )


def reference_warning_of(evaluation: Evaluation) -> str:
    """``reference_warning`` of an evaluation's best set; "" where classes are not on record."""
    rows = evaluation.best.table.classes
    return reference_warning(
        [row.num_real for row in rows],
        [row.num_fake for row in rows],
        [row.num_train for row in rows],
        evaluation.weighed,
    )


def chance(found: SetResult, num_classes: int) -> float:
    """Label fidelity of a guess that does not look: the share of the largest class."""
    made = [row.num_fake for row in found.table.classes]
    return max([1 / max(num_classes, 1), *(n / max(sum(made), 1) for n in made)])


def is_chance(found: SetResult, num_classes: int) -> bool:
    """Whether the label fidelity of a set may be that of a guess (95 %).

    False without one, and of a single class, where every guess is right.
    """
    if found.fidelity is None or num_classes < 2:
        return False
    share = wilson(found.fidelity.value, found.num_images)
    return share.low <= chance(found, num_classes)


def collapsed_to(found: SetResult) -> int | None:
    """The class that most images show whatever was asked for; None where there is no such.

    Most are taken for it, and its own images are much nearer to real ones than those of other
    labels: the classifier takes noise for some class too, but that is near to none.
    """
    made = [row.num_fake for row in found.table.classes]
    if len(made) < 2 or len(found.shown) != len(made):
        return None
    top = max(range(len(made)), key=lambda c: found.shown[c])
    share = found.shown[top] / max(sum(found.shown), 1)
    if share < MOST_OF_THEM or share < 2 * made[top] / max(sum(made), 1):
        return None
    far = {
        row.label: row.sliced_wasserstein.value
        for row in found.table.classes
        if row.sliced_wasserstein
    }
    others = [far[c] for c in far if c != top]
    if top not in far or not others or 3 * far[top] > median(others):
        return None
    return top


def noise_warning(evaluation: Evaluation) -> str:
    """A sentence where the best set's images show nothing although a number praises them."""
    best, num_classes = evaluation.best, len(evaluation.class_names)
    precision, coverage = best.precision, best.coverage
    praised = precision is not None and precision >= HIGH_PRECISION
    collapsed = collapsed_to(best)
    if collapsed is not None:
        share = best.shown[collapsed] / sum(best.shown)
        kept = "" if best.fidelity is None else f" Label fidelity is {best.fidelity.value:.1%}."
        return (
            f"Whatever class was asked for, {share:.0%} of the images show "
            f"{evaluation.class_names[collapsed]!r}: the other classes are missing.{kept}"
        )
    if is_chance(best, num_classes):
        assert best.fidelity is not None, "else it is not chance"
        said = (
            f"The images show no class: label fidelity is {best.fidelity.value:.1%}, a guess "
            f"among {num_classes} classes is right in {chance(best, num_classes):.1%}."
        )
        if praised:
            said += f" Precision ({precision:.3f}) and density tell nothing of such images."
        return said
    floor = evaluation.floor.coverage if evaluation.floor else None
    low = max(LOW_COVERAGE, (floor or 0.0) / 4)  # a quarter of what real images cover
    if praised and coverage is not None and coverage < low:
        return (
            f"Precision ({precision:.3f}) is no praise here: only {coverage:.1%} of the real "
            "images have a generated one nearby (coverage), so the images all lie in the same "
            "few places."
        )
    return ""


def beyond_chance(made: GroupMemorisation, held: GroupMemorisation | None) -> bool:
    """Whether generated images hold more near-copies than held-out real ones: 95 % intervals
    apart. False where either share is not known."""
    if made.copies is None or held is None or held.copies is None:
        return False
    low = wilson(made.copies, made.num_images).low
    return low > wilson(held.copies, held.num_images).high


def cautions(evaluation: Evaluation) -> tuple[str, ...]:
    """All that has to be read before an evaluation's numbers; usually nothing."""
    found = reference_warning_of(evaluation), noise_warning(evaluation)
    return tuple(said for said in found if said)
