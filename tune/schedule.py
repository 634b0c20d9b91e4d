"""Rungs: after how many images trials are compared.

Asynchronous successive halving (Li et al. 2020) in its stopping form, as Ray Tune has it: a
trial that reaches a rung is compared with all that reached it before, and goes on if it is
among the best 1 / eta of them. Nothing waits, and what is compared has cost the same number of
images.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tune.space import Choice, Space


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


class Spared:
    """Which trials stopping spares: at a rung, the best so far of each kind.

    What learns labels fast is ahead early by FID, whoever wins in the end, so that a rung might
    end all trials of another kind. Of each kind some trial comes to its end: the one that is
    first at a rung, and whoever is better there than all of its kind before it.
    """

    def __init__(self, space: Space):
        self.axes = [option for option, d in space.items() if isinstance(d, Choice)]
        self._best: dict[tuple[str, int], float] = {}
        """Kind and images of a rung -> the lowest value there."""

    def kinds(self, config: Mapping[str, Any]) -> list[str]:
        """Of a trial as Tune has it: control, or search and each value of its choices."""
        kind = str(config["kind"])
        axes = [] if kind == "control" else self.axes
        return [kind, *(f"{option}={config[option]:g}" for option in axes if option in config)]

    def is_best(self, config: Mapping[str, Any], images: int, value: float) -> bool:
        """Whether it is, for one of its kinds; remembers the value."""
        found = False
        for kind in self.kinds(config):
            if value < self._best.get((kind, images), math.inf):
                self._best[kind, images], found = value, True
        return found


def num_kinds(space: Space) -> int:
    """Trials at least that come to their end: a control, and one for each value of a choice."""
    values = [len(d.values) for d in space.values() if isinstance(d, Choice)]
    return 1 + max([1, *values])


def expected_images(trials: int, steps: Sequence[int], eta: int, fewest: int = 1) -> int:
    """What stopping is expected to cost: at each rung one in eta goes on, or the fewest."""
    left, cost, before = trials, 0, 0
    for step in steps:
        cost += left * (step - before)
        before, left = step, max(min(fewest, left), left // eta)
    return cost
