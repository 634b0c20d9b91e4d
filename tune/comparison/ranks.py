"""How well the order of methods at an earlier stop tells that at the last one.

What stops the worse early, as a search does, keeps what is ahead there. Spearman's rank
correlation of the criterion says what that is worth: 1 where the order is already that of the
end, 0 where it tells nothing, below 0 where those ahead fall behind.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbdm_scale.metrics.intervals import Interval
from tune.comparison.choice import Grid, cost_of

DRAWS = 2_000
"""Resamplings of the seeds."""
THIRD = 3
"""One method in so many goes on, as in a search with --eta 3."""
FEWEST = 3
"""Methods of a seed: the order of two is the same or turned round, whatever they are."""
TOO_FEW = (
    f"How well an earlier stop tells the last is a correlation of the ranks of {FEWEST} "
    "methods or more. There are fewer here."
)


@dataclass(frozen=True)
class Agreement:
    """Of one stop with the last."""

    stop: int
    """In compute."""

    correlation: Interval
    """Mean over seeds, and 95 % of its resamplings over seeds; ends are nan of one seed."""

    num_networks: int
    num_seeds: int

    kept: float
    """Share of the seeds whose best method at the end is among the best third here."""


def agreements(
    grids: Sequence[Mapping[int, Grid]], criterion: Mapping[str, float]
) -> tuple[Agreement, ...]:
    """Every stop but the last, in rising order.

    grids: of each method by seed. Within a seed the methods that have both stops are compared,
    each at the strength that is best for the criterion then. A seed counts with ``FEWEST``
    methods or more, two of which differ.
    """
    by_seed: dict[int, list[dict[int, float]]] = {}
    for method in grids:
        for seed, grid in method.items():
            by_seed.setdefault(seed, []).append(best_at(grid, criterion))
    stops = sorted({stop for some in by_seed.values() for one in some for stop in one})
    found = (_agreement(stop, stops[-1], by_seed) for stop in stops[:-1])
    return tuple(one for one in found if one is not None)


def best_at(grid: Grid, criterion: Mapping[str, float]) -> dict[int, float]:
    """Stop -> the criterion at the strength that is best for it then."""
    found: dict[int, float] = {}
    for (stop, _), scores in grid.items():
        found[stop] = min(found.get(stop, np.inf), cost_of(scores, criterion))
    return found


def _agreement(
    stop: int, last: int, by_seed: Mapping[int, list[dict[int, float]]]
) -> Agreement | None:
    correlations, kept, networks = list[float](), list[bool](), 0
    for some in by_seed.values():
        pairs = [(one[stop], one[last]) for one in some if stop in one and last in one]
        early, late = (list(side) for side in zip(*pairs, strict=True)) if pairs else ([], [])
        if len(pairs) < FEWEST or min(len(set(early)), len(set(late))) < 2:
            continue
        correlations.append(spearman(early, late))
        ahead = sorted(early)[-(-len(early) // THIRD) - 1]
        kept.append(early[late.index(min(late))] <= ahead)
        networks += len(pairs)
    if not correlations:
        return None
    return Agreement(
        stop, over_seeds(correlations), networks, len(kept), statistics.fmean(kept)
    )


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation of two lists of numbers, each with two different ones; ties share."""
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean, with the 2.5 and 97.5 % quantiles of means of the seeds drawn again."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean)
    drawn = np.random.default_rng(0).choice(np.array(values), (DRAWS, len(values)))
    low, high = np.quantile(drawn.mean(1), (0.025, 0.975))
    return Interval(mean, float(low), float(high))
