"""The best stop and strength of a network on one half of the images, reported on the other.

The two halves then change places, and the two reports are averaged. So no network is judged by
the images that chose how it is used. Each network is chosen for by itself: its seed tells
nothing of the other seeds. Of several feature spaces the first one chooses for all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cbdm_scale.data.groups import GROUPS, Group
from cbdm_scale.storage.wording import shorten
from tune.comparison.scores import Scorer, Scores, average
from tune.comparison.sets import HALVES, Features

Point = tuple[int, float]
"""Stop, in compute, and strength."""
Grid = dict[Point, Scores]


@dataclass(frozen=True)
class Chosen:
    """What one half chose."""

    stop: int
    strengths: dict[str, float]
    """By group; under "all" where it is one for all classes."""

    @property
    def words(self) -> str:
        """72,000 at 0.5; 72,000 at 0.5/0.5/1."""
        return f"{self.stop:,} at " + "/".join(f"{o:g}" for o in self.strengths.values())


@dataclass(frozen=True)
class Report:
    """A network at its best, in one feature space."""

    scores: Scores
    """The two halves averaged."""

    chosen: tuple[Chosen, ...]
    """By the first half, by the second."""


def cost_of(scores: Scores, criterion: Mapping[str, float]) -> float:
    """The weighted sum that is smallest at the best; ValueError where a score is not there."""
    if missing := [name for name in criterion if name not in scores]:
        raise ValueError(
            f"criterion ({shorten(missing)}) is no score that can be had of so few images. "
            f"Choose from: {', '.join(sorted(scores))}."
        )
    return sum(weight * scores[name] for name, weight in criterion.items())


def by_group(criterion: Mapping[str, float], group: Group) -> dict[str, float]:
    """The same scores, each of one group."""
    found: dict[str, float] = {}
    for name, weight in criterion.items():
        base, _, end = name.rpartition("_")
        key = f"{base if end in GROUPS else name}_{group}"
        found[key] = found.get(key, 0.0) + weight
    return found


@dataclass(frozen=True)
class SetsInSpace:
    """The sets of a network in one feature space."""

    load: Callable[[Point], Features]
    """Reads a set."""

    scores: Mapping[Point, tuple[Scores, ...]]
    """Of each half of each set."""

    both: tuple[Scorer, Scorer]

    @property
    def grid(self) -> Grid:
        """Every point with its scores, both halves averaged."""
        return {point: average(halves) for point, halves in self.scores.items()}

    def at(self, chosen: Chosen, half: int) -> Scores:
        """Of a half of the images at what was chosen."""
        if "all" in chosen.strengths:
            return self.scores[chosen.stop, chosen.strengths["all"]][half]
        scorer, union = self.both[half], None
        for group, omega in chosen.strengths.items():
            part = self.load((chosen.stop, omega)).half(half)
            mine = scorer.members(part.y, group)  # type: ignore[arg-type]
            union = part if union is None else union.replaced(mine, part)
        assert union is not None, "there is a group"
        return scorer.scores(union)


class Chooser:
    """Chooses for one network, among the sets that were made of it."""

    def __init__(self, spaces: Sequence[SetsInSpace], criterion: Mapping[str, float]):
        """spaces: the same sets in each; the first one chooses."""
        self.spaces, self.first, self.criterion = spaces, spaces[0], criterion

    def reports(self, guidance: Literal["one", "by_group"]) -> tuple[Report, ...]:
        """Choose on each half, and report on the other, in every space."""
        choose = self._one if guidance == "one" else self._by_group
        chosen = tuple(choose(half) for half in range(HALVES))
        return tuple(
            Report(average([space.at(c, HALVES - 1 - i) for i, c in enumerate(chosen)]), chosen)
            for space in self.spaces
        )

    def _cost(self, point: Point, half: int) -> float:
        return cost_of(self.first.scores[point][half], self.criterion)

    def _one(self, half: int) -> Chosen:
        stop, omega = min(self.first.scores, key=lambda point: self._cost(point, half))
        return Chosen(stop, {"all": omega})

    def _by_group(self, half: int) -> Chosen:
        """For each stop the best strength of each group; then the best of the stops."""
        found, first = [], self.first
        for stop in dict.fromkeys(stop for stop, _ in first.scores):
            omegas = [omega for at, omega in first.scores if at == stop]
            strengths: dict[str, float] = {}
            for group in GROUPS:
                if group not in first.both[half].groups:
                    continue
                wanted = by_group(self.criterion, group)
                strengths[group] = min(
                    omegas, key=lambda o: cost_of(first.scores[stop, o][half], wanted)
                )
            found.append(Chosen(stop, strengths))
        return min(found, key=lambda c: cost_of(first.at(c, half), self.criterion))
