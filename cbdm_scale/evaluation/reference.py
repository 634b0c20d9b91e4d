"""Whether the real images are a fair reference: as many of each class as are generated."""

from collections.abc import Sequence

from cbdm_scale.evaluation.results import Evaluation

REFERENCE_TAG = "reference_warning"
"""Of a run in MLflow: what ``reference_warning`` says."""
TOLERANCE = 0.1
"""Share of the images that may be of other classes than on the other side."""


def imbalance(real: Sequence[int], made: Sequence[int]) -> float:
    """Total variation distance between the shares of the classes, 0 to 1.

    It is the share of the images on one side that would have to change their class.
    """
    if not sum(real) or not sum(made):
        return 0.0
    pairs = zip(real, made, strict=True)
    return sum(abs(a / sum(real) - b / sum(made)) for a, b in pairs) / 2


def reference_warning(real: Sequence[int], made: Sequence[int], train: Sequence[int]) -> str:
    """A sentence where the real images have other class frequencies than the generated ones.

    Counts by class (K,) of the eval split, the generated images, the training images; "" if
    the reference is fair.
    """
    share = imbalance(real, made)
    if share <= TOLERANCE:
        return ""
    itself = ", as the training images it is made of" if list(real) == list(train) else ""
    return (
        f"The real images have from {max(real):,} down to {min(real):,} a class{itself}, and "
        f"{share:.0%} of the generated ones would have to be of another class to match: FID, "
        "KID, precision and recall over all classes reward a network that neglects rare "
        "classes. Read the numbers by group and by class, or prepare the data set with a "
        "balanced --eval-source."
    )


def warning_of(evaluation: Evaluation) -> str:
    """``reference_warning`` of an evaluation's best set; "" where classes are not on record."""
    rows = evaluation.best.table.classes
    return reference_warning(
        [row.num_real for row in rows],
        [row.num_fake for row in rows],
        [row.num_train for row in rows],
    )
