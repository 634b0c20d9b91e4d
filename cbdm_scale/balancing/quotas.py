"""How many generated images each class is to get, and how many to make of it next.

K = classes. Nothing here imports torch.
"""

import math
import re
from collections.abc import Sequence

from cbdm_scale.data.groups import GROUPS

PROBE = 20
"""Images of a class in the first round, which shows how many of them are accepted."""
SPARE = 1.1
"""Images made, times those that the share accepted so far promises to be enough."""
FEWEST = 8
"""Of a class in a round: fewer are not worth one, and tell nothing."""


def check_target(to: str) -> None:
    """ValueError unless it is fill, a number from 1 on, or x and a number above 1."""
    if to != "fill" and not (to.isdecimal() and int(to) > 0) and _multiple(to) is None:
        raise ValueError(
            f"to ({to}) says no number of images. Give --to fill (as many as the largest class "
            "has), a number such as --to 500, or a multiple above 1 such as --to x2."
        )


def _multiple(to: str) -> float | None:
    found = re.fullmatch(r"x(\d+(?:\.\d+)?)", to)
    return float(found[1]) if found and float(found[1]) > 1 else None


def lacking(to: str, counts: Sequence[int], classes: Sequence[int]) -> tuple[int, ...]:
    """Images that each class lacks, (K,); 0 of those that are not among ``classes``.

    ``counts`` (K,) are the real training images. A class without one gets none: no network
    has learnt it, and nothing says what its images look like.
    """
    factor = _multiple(to)
    wanted = [
        round(factor * n) if factor else max(counts) if to == "fill" else int(to)
        for n in counts
    ]
    return tuple(
        max(want - n, 0) if n and c in classes else 0
        for c, (want, n) in enumerate(zip(wanted, counts, strict=True))
    )


def chosen_classes(
    classes: Sequence[str], groups: Sequence[str], class_names: Sequence[str]
) -> tuple[list[str], list[int]]:
    """(names or numbers of classes, labels of the classes of groups that are named).

    A class that is called like a group is the class.
    """
    by_group = [word for word in classes if word in GROUPS and word not in class_names]
    named = [word for word in classes if word not in by_group]
    return named, [c for c, group in enumerate(groups) if group in by_group]


def next_quotas(
    need: Sequence[int], accepted: Sequence[int], made: Sequence[int], most: float
) -> tuple[int, ...]:
    """Images to make of each class in the next round, (K,).

    need, accepted, made (K,): images lacking at the start, accepted and made so far. The first
    round is a probe; later ones follow the share of a class that was accepted,
    (accepted + 1) / (made + 2), up to ``most`` times the need of a class in all.
    """
    quotas = []
    for lack, took, done in zip(need, accepted, made, strict=True):
        limit = max(math.ceil(most * lack), FEWEST)
        if took >= lack or done >= limit:
            quotas.append(0)
        elif not done:
            quotas.append(max(min(lack, PROBE), FEWEST))
        else:
            share = (took + 1) / (done + 2)
            wanted = max(math.ceil(SPARE * (lack - took) / share), FEWEST)
            quotas.append(min(wanted, limit - done))
    return tuple(quotas)
