"""Rungs: after how many images trials are compared, and which go on.

The rule is that of asynchronous successive halving (Li et al. 2020) in its stopping form: a
trial that reaches a rung is compared with all that reached it before, and goes on if it is
among the best 1 / eta of them. Nothing waits, and what is compared has cost the same number of
images.
"""

from collections.abc import Sequence

from tune.objective import ranking


def rungs(total: int, batch: int, eta: int, first: int = 0) -> tuple[int, ...]:
    """Images at which trials are compared, the last of them ``total``.

    Each is ``eta`` times the one before, as a multiple of the batch. ``first`` 0 makes three.
    """
    at = float(first or total / eta**2)
    found = []
    while round_up(at, batch) < total:
        found.append(round_up(at, batch))
        at *= eta
    return (*found, round_up(total, batch))


def round_up(images: float, batch: int) -> int:
    return -(-int(-(-images // 1)) // batch) * batch


def goes_on(mine: Sequence[float], before: Sequence[Sequence[float]], eta: int) -> bool:
    """Whether an evaluation is among the best 1 / eta of those at its rung, itself included.

    The first at a rung goes on; of equal ones the earlier is the better.
    """
    points = [*before, mine]
    places = max(1, len(points) // eta)
    return len(points) - 1 in ranking(points)[:places]


def trained_images(furthest: Sequence[int]) -> int:
    """What the trials of a search have cost; ``furthest``: images that each has seen."""
    return sum(furthest)


def expected_images(trials: int, steps: Sequence[int], eta: int) -> int:
    """What stopping is expected to cost: at each rung one in eta goes on, at least one."""
    left, cost, before = trials, 0, 0
    for step in steps:
        cost += left * (step - before)
        before, left = step, max(1, left // eta)
    return cost
