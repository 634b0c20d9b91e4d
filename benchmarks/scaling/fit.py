"""The model's constants out of measurements: least squares, nothing below zero.

Shapes: P = points, an all-reduce of some bytes in some buckets by some ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from benchmarks.scaling.model import BACKWARD
from benchmarks.scaling.wire import ring_bytes


@dataclass(frozen=True)
class Reduction:
    """One measured all-reduce."""

    ranks: int
    num_bytes: float
    buckets: int
    seconds: float


def fit_link(points: Sequence[Reduction]) -> tuple[float, float]:
    """(bandwidth in bytes a second, latency of a hop in seconds) that explain the points best.

    In relative terms, so that slow points do not outweigh quick ones. A ring's hops.
    """
    rows = np.array(
        [
            [
                ring_bytes(p.num_bytes, p.ranks) / p.seconds,
                2 * (p.ranks - 1) * p.buckets / p.seconds,
            ]
            for p in points
        ]
    )  # (P, 2)
    scale = rows.max(axis=0)
    found, _ = nnls(rows / scale, np.ones(len(points)))
    per_byte, latency = found / scale
    return (1 / per_byte if per_byte > 0 else float("inf")), float(latency)


def hidden_share(compute: float, reduce: float, together: float) -> float:
    """Of what could have hidden, the share that did: 1 is all of it, 0 is none.

    What can hide is the smaller of the reduction and the backward pass.
    """
    possible = min(reduce, BACKWARD * compute)
    return (compute + reduce - together) / possible if possible > 0 else 1.0
