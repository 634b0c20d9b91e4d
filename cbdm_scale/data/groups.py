"""Groups of classes by their number of training images: many, medium, few."""

from collections.abc import Sequence
from typing import Literal, get_args

Group = Literal["many", "medium", "few"]


GROUPS: tuple[Group, ...] = get_args(Group)


def class_groups(counts: Sequence[int]) -> tuple[Group, ...]:
    """The group of every class: many > 100 training images, medium 20-100, few < 20.

    Where a group would hold fewer than three classes, thirds of the classes by count instead
    (ten digits: 3 / 4 / 3), the larger classes first and ties in label order.
    """
    groups: tuple[Group, ...] = tuple(
        "many" if n > 100 else "medium" if n >= 20 else "few" for n in counts
    )
    if all(groups.count(g) >= 3 for g in GROUPS):
        return groups
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    third = len(counts) // 3
    by_rank: dict[int, Group] = {}
    for rank, c in enumerate(order):
        head, tail = rank < third, rank >= len(counts) - third
        by_rank[c] = "many" if head else "few" if tail else "medium"
    return tuple(by_rank[c] for c in range(len(counts)))
