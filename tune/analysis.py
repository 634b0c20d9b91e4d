"""What a search found: finalists over several seeds, and whether they beat the control.

The seed of the search chose the finalists, so its own numbers flatter them: only the
repetitions with other seeds count here. Nor may it choose the guidance strength, or a setting
whose strength it got wrong would lose to one where it was lucky: each repetition counts at the
strength that is best for the others of its setting.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cbdm_scale.metrics.intervals import Interval
from tune.objective import (
    METRICS,
    NAMES,
    WORDS,
    ObjectiveName,
    best_strength,
    cost_of,
    front,
    scalar,
    values_at,
)
from tune.trials import Trial, TrialStore

Verdict = Literal["better", "worse", "even"]


@dataclass(frozen=True)
class Finalist:
    """A trial and its repetitions, in the order of their seeds."""

    trial: Trial
    repetitions: tuple[Trial, ...]
    objective: ObjectiveName

    @property
    def omega(self) -> str:
        """The strength that is best over all repetitions; without any, in the search."""
        return self._best(self.repetitions)

    @property
    def strengths(self) -> list[str]:
        """Of every repetition: the strength that is best over the others."""
        return [
            self._best([other for other in self.repetitions if other is not one])
            for one in self.repetitions
        ]

    def _best(self, trials: Sequence[Trial]) -> str:
        known = [trial.rungs[-1].scores for trial in trials or (self.trial,)]

        def mean(omega: str) -> float:
            return statistics.fmean(scalar(values_at(s, omega, self.objective)) for s in known)

        return min(known[0], key=mean)

    def scores(self) -> list[Mapping[str, float]]:
        """Name -> value of every repetition, at its strength."""
        pairs = zip(self.repetitions, self.strengths, strict=True)
        return [trial.rungs[-1].scores[omega] for trial, omega in pairs]

    def scalars(self) -> list[float]:
        """The objective of every repetition as one number."""
        pairs = zip(self.repetitions, self.strengths, strict=True)
        return [
            scalar(values_at(trial.rungs[-1].scores, omega, self.objective))
            for trial, omega in pairs
        ]

    @property
    def mean(self) -> float:
        """Of the objective; infinite without repetitions."""
        return statistics.fmean(self.scalars()) if self.repetitions else math.inf


@dataclass(frozen=True)
class Comparison:
    """The winner beside the control in one metric, over the seeds that both have."""

    metric: str
    winner: Interval
    control: Interval
    difference: Interval
    """Winner - control, seed by seed: lower is better."""

    num_seeds: int

    @property
    def verdict(self) -> Verdict:
        """Better or worse only where the interval of the difference leaves out 0."""
        if self.difference.high < 0:
            return "better"
        return "worse" if self.difference.low > 0 else "even"


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of a few values with its 95 % interval by Student's t; infinite for one."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values)
    half /= math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def choose_finalists(store: TrialStore, objective: ObjectiveName, number: int) -> list[Trial]:
    """The best trials that came to their end, and the best control; [] for ``number`` 0.

    Where none came to its end but controls, as in a small search, the best of those that came
    furthest: a repetition is not stopped. With several objectives the best are those of the
    front, and then those nearest to it.
    """
    evaluated = [t for t in store.of_kind("control", "search") if t.rungs]
    ended = [t for t in evaluated if t.status == "finished"]
    controls = sorted((t for t in ended if t.is_control), key=lambda t: t.value(objective))
    searched = [t for t in ended if not t.is_control]
    if not searched:
        others = [t for t in evaluated if not t.is_control]
        furthest = max((t.images for t in others), default=0)
        searched = [t for t in others if t.images == furthest]
    if not number or not searched:
        return []
    return [searched[i] for i in order(searched, objective)[:number]] + controls[:1]


def order(trials: Sequence[Trial], objective: ObjectiveName) -> list[int]:
    """Places of trials in a list, the best first."""
    points = []
    for trial in trials:
        scores = trial.rungs[-1].scores
        points.append(values_at(scores, best_strength(scores, objective), objective))
    first = set(front(points))
    return sorted(range(len(trials)), key=lambda i: (i not in first, scalar(points[i]), i))


def finalists(store: TrialStore, objective: ObjectiveName) -> list[Finalist]:
    """Those that were repeated, the best first."""
    found = []
    for number in sorted({t.of for t in store.of_kind("final")}):
        trial = store.trials[number]
        again = [t for t in store.of_kind("final") if t.of == number]
        ended = tuple(t for t in again if t.status == "finished")
        found.append(Finalist(trial, ended, objective))
    return sorted(found, key=lambda f: (f.mean, f.trial.id))


def compare(winner: Finalist, control: Finalist) -> list[Comparison]:
    """Metric by metric, over the seeds that both came to their end with."""
    found = []
    ours, theirs = _by_seed(winner), _by_seed(control)
    for metric in NAMES:
        both = [(a, theirs[seed]) for seed, a in ours.items() if seed in theirs]
        pairs = [
            (cost_of(a, metric), cost_of(b, metric))
            for a, b in both
            if metric in a and metric in b
        ]
        if pairs:
            difference = mean_interval([a - b for a, b in pairs])
            mine, its = (mean_interval(v) for v in zip(*pairs, strict=True))
            found.append(Comparison(metric, mine, its, difference, len(pairs)))
    return found


def _by_seed(found: Finalist) -> dict[int, Mapping[str, float]]:
    """The seed of each repetition -> name -> value."""
    return dict(zip((t.seed for t in found.repetitions), found.scores(), strict=True))


def statement(found: Sequence[Finalist], comparisons: Sequence[Comparison]) -> list[str]:
    """Whether the winner beats the control beyond noise, and for which classes; sentences."""
    if not found or not found[0].repetitions:
        return [
            "No winner is named: nothing was repeated with other seeds, and one seed does not "
            "tell a better setting from luck. With --finalists 1 or more the same command "
            "repeats the best."
        ]
    if found[0].trial.is_control:
        return [
            f"The control wins: DDPM (tau 0, trial {found[0].trial.id}) has the lowest "
            f"{WORDS[found[0].objective]} over {len(found[0].repetitions)} seeds. "
            "No value of tau that was repeated serves this data set better."
        ]
    if not comparisons:
        return ["The control was not repeated, so that nothing is known of tau."]
    seeds = comparisons[0].num_seeds
    objective = found[0].objective
    clear = any(c.verdict == "better" and c.metric in METRICS[objective] for c in comparisons)
    first = (
        f"Trial {found[0].trial.id} beats the control (tau 0) beyond noise"
        if clear
        else "Nothing beats the control (tau 0) beyond noise; "
        f"trial {found[0].trial.id} has the lowest {WORDS[objective]}"
    )
    lines = [
        f"{first}, over {seeds} seeds, each at the guidance strength that is best for its "
        "setting's other seeds."
    ]
    words = {
        "better": "Better beyond noise:",
        "worse": "Worse beyond noise:",
        "even": "No difference beyond noise:",
    }
    for verdict, start in words.items():
        some = [_one(c) for c in comparisons if c.verdict == verdict]
        if some:
            lines.append(f"{start} {'; '.join(some)}.")
    return lines


def _one(found: Comparison) -> str:
    d = found.difference
    ends = f"difference {d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}]"
    return (
        f"{NAMES[found.metric]} ({found.winner.value:.2f} to {found.control.value:.2f}, {ends})"
    )
