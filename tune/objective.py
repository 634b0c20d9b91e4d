"""What two evaluations are compared by.

An evaluation holds the scores at several guidance strengths, and counts with those of its best
one: the strength is chosen when images are made, and differs from loss to loss. Lower is
better; recall counts as what it misses, 1 - recall.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from cbdm_scale.data.guidance_strength import parse_strength

ObjectiveName = Literal["fid", "fid_few", "pareto", "pareto_recall"]
Scores = Mapping[str, Mapping[str, float]]
"""Guidance strength (as text) -> name -> value, as ``Evaluation.scores`` has them."""
METRICS: dict[ObjectiveName, tuple[str, ...]] = {
    "fid": ("fid",),
    "fid_few": ("fid_few",),
    "pareto": ("fid", "fid_few"),
    "pareto_recall": ("fid", "fid_few", "recall"),
}
WORDS: dict[ObjectiveName, str] = {
    "fid": "FID",
    "fid_few": "FID of the few classes",
    "pareto": "geometric mean of FID and FID of the few classes",
    "pareto_recall": "geometric mean of FID, FID of the few classes and 1 - recall",
}
NAMES = {
    "fid": "FID",
    "fid_many": "FID of the many classes",
    "fid_medium": "FID of the medium classes",
    "fid_few": "FID of the few classes",
    "recall": "1 - recall",
}
"""The metrics that results are given in, lower is better."""


def scalar(values: Sequence[float]) -> float:
    """One number: the value itself, of several their geometric mean."""
    logs = [math.log(value) if value > 0 else -math.inf for value in values]
    return math.exp(sum(logs) / len(logs))


def numbers_of(scores: Scores) -> list[str]:
    """The strengths that are one number for all classes, in rising order."""
    found = [omega for omega in scores if not isinstance(parse_strength("omega", omega), str)]
    return sorted(found, key=float)


def best_strength(scores: Scores, objective: ObjectiveName) -> str:
    """The strength at which the objective (its ``scalar``) is smallest."""
    return min(scores, key=lambda omega: scalar(values_at(scores, omega, objective)))


def values_at(scores: Scores, omega: str, objective: ObjectiveName) -> tuple[float, ...]:
    """The objective's metrics at one strength, lower is better."""
    return tuple(cost_of(scores[omega], metric) for metric in METRICS[objective])


def cost_of(scores: Mapping[str, float], metric: str) -> float:
    """A metric as something to make small."""
    return 1 - scores[metric] if metric == "recall" else scores[metric]


def best_values(scores: Scores, objective: ObjectiveName) -> tuple[float, ...]:
    """The objective at its best strength."""
    return values_at(scores, best_strength(scores, objective), objective)


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """No worse in anything, and better in something."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Which points no other dominates."""
    return [i for i, p in enumerate(points) if not any(_dominates(q, p) for q in points)]
