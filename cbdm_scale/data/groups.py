"""Groups of classes by their number of training images: many, medium, few."""

from collections.abc import Sequence
from typing import Literal, get_args

Group = Literal["many", "medium", "few"]


GROUPS: tuple[Group, ...] = get_args(Group)


def class_groups(counts: Sequence[int]) -> tuple[Group, ...]:
    """The group of every class: many > 100 training images, medium 20-100, few < 20.

    Where a group would hold fewer than three classes, thirds of the classes by count instead
    (ten digits: 3 / 4 / 3), the larger classes first. Equally large classes are in one group:
    where they would be in two, in that of the middle one of them; a balanced set has one group,
    by the number of its images.
    """
    groups: tuple[Group, ...] = tuple(
        "many" if n > 100 else "medium" if n >= 20 else "few" for n in counts
    )
    if all(groups.count(g) >= 3 for g in GROUPS) or len(set(counts)) == 1:
        return groups
    order = sorted(counts, reverse=True)
    third = len(counts) // 3
    by_count: dict[int, Group] = {}
    for n in set(counts):
        middle = order.index(n) + (order.count(n) - 1) / 2  # the rank of the middle one
        head, tail = middle < third, middle > len(counts) - third - 1
        by_count[n] = "many" if head else "few" if tail else "medium"
    return tuple(by_count[n] for n in counts)
