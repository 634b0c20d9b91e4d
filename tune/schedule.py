"""Rungs: after how many images trials are compared.

Asynchronous successive halving (Li et al. 2020) in its stopping form, as Ray Tune has it: a
trial that reaches a rung is compared with all that reached it before, and goes on if it is
among the best 1 / eta of them. Nothing waits, and what is compared has cost the same number of
images.
"""

from collections.abc import Sequence


def rungs(total: int, batch: int, eta: int, first: int = 0) -> tuple[int, ...]:
    """Images at which trials are compared, the last of them ``total``.

    Each is ``eta`` times the one before, as a multiple of the batch. ``first`` 0 makes three.
    """
    at = float(first or total / eta**2)
    found = []
    while _round_up(at, batch) < total:
        found.append(_round_up(at, batch))
        at *= eta
    return (*found, _round_up(total, batch))


def _round_up(images: float, batch: int) -> int:
    return -(-int(-(-images // 1)) // batch) * batch


def even_rungs(total: int, batch: int, every: int) -> tuple[int, ...]:
    """For a population: equal steps, the last of them to ``total``."""
    step, end = _round_up(every, batch), _round_up(total, batch)
    return (*range(step, end, step), end)


def expected_images(trials: int, steps: Sequence[int], eta: int) -> int:
    """What stopping is expected to cost: at each rung one in eta goes on, at least one."""
    left, cost, before = trials, 0, 0
    for step in steps:
        cost += left * (step - before)
        before, left = step, max(1, left // eta)
    return cost
