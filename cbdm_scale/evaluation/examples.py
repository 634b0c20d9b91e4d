"""Which images a report shows: the first of some classes, not selected.

Shapes: N = real images, M = generated images, K = classes.
"""

from collections.abc import Sequence

from torch import Tensor

from cbdm_scale.evaluation.results import ClassExamples

IMAGES_PER_CLASS = 8
"""That a report shows, at most."""


def shown_classes(counts: Sequence[int], each: int = 2) -> tuple[int, ...]:
    """Head, middle and tail of the classes by training images: up to ``each`` of each.

    All classes where there are no more than three times ``each``. Ties in label order.
    """
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    if len(order) <= 3 * each:
        return tuple(order)
    middle = (len(order) - each) // 2
    return (*order[:each], *order[middle : middle + each], *order[-each:])


def class_examples(
    counts: Sequence[int], real: Tensor, fake: Tensor, nearest: Tensor | None
) -> tuple[ClassExamples, ...]:
    """The first images of some classes, as many of each; classes with none are left out.

    counts (K,) of the training set choose the classes; real (N,) and fake (M,) are labels,
    nearest (M,) training images.
    """
    rows = {
        c: [(labels == c).nonzero().flatten().tolist() for labels in (real, fake)]
        for c in shown_classes(counts)
    }
    rows = {c: sides for c, sides in rows.items() if all(sides)}
    n = min((len(side) for sides in rows.values() for side in sides), default=0)
    n = min(n, IMAGES_PER_CLASS)
    return tuple(
        ClassExamples(
            label=c,
            real=tuple(real_rows[:n]),
            generated=tuple(fake_rows[:n]),
            nearest=() if nearest is None else tuple(nearest[fake_rows[:n]].tolist()),
        )
        for c, (real_rows, fake_rows) in rows.items()
    )
