"""The time of a step on many GPUs: compute, an all-reduce, and how much of it hides.

    step = compute + communication - hidden
    communication = 2 (R - 1) / R * bytes / bandwidth + hops * latency * buckets
    hidden = the smaller of (share that can hide) * communication and the backward pass

and its constants out of measurements. Pure arithmetic, in seconds and bytes. What it leaves
out: ranks that wait for a slow one, kernels of the all-reduce that take the backward pass's
processors, a network that others use.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import nnls

BACKWARD = 2 / 3
"""Share of the backward pass in the compute of a step: two of the three products per layer."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What joins the GPUs, as one bandwidth inside a node and one between nodes."""

    inside: float
    """Bytes a second through a GPU in a ring within its node, each direction; inf is free."""
    between: float
    """Bytes a second out of a node, each direction, all its adapters together."""
    per_node: int = 8
    latency: float = 0.0
    """Seconds of one hop of one all-reduce, of which NCCL's double trees have 2 log2(R)."""

    def bandwidth(self, gpus: int) -> float:
        """Of the narrowest place that a ring through so many GPUs passes."""
        return self.inside if gpus <= self.per_node else min(self.inside, self.between)


@dataclass(frozen=True, kw_only=True)
class Device:
    """How fast one GPU computes a step by itself."""

    flops: float
    """Floating-point operations a second that it really does on this work."""
    launch: float = 0.0
    """Seconds to start a kernel: a step with many small kernels takes their number of these."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a step computes and reduces."""

    flops_per_image: float
    """Forward and backward, all predictions of the loss included."""
    kernels: int
    """Started in a step, whatever the batch."""
    gradient_bytes: float
    buckets: int = 1
    hidden: float = 1.0
    """Share of the communication that may run beside the backward pass: not the last bucket."""


def ring_bytes(num_bytes: float, ranks: int) -> float:
    """What each rank must send to all-reduce so many bytes: 2 (R - 1) / R of them.

    The bound holds for every algorithm whose ranks send alike; a ring reaches it (Patarasuk
    and Yuan, 2009).
    """
    return 2 * (ranks - 1) / ranks * num_bytes


def compute_seconds(work: Work, device: Device, images: float) -> float:
    """Forward and backward of so many images on one GPU: arithmetic or launches bind."""
    return max(work.flops_per_image * images / device.flops, work.kernels * device.launch)


def reduce_seconds(work: Work, network: Network, gpus: int) -> float:
    """The all-reduces of a step, nothing else going on."""
    if gpus == 1:
        return 0.0
    on_wire = ring_bytes(work.gradient_bytes, gpus) / network.bandwidth(gpus)
    return on_wire + 2 * math.log2(gpus) * network.latency * work.buckets


def with_overlap(compute: float, reduce: float, hidden: float) -> float:
    """Compute, and as much of the reduction as does not fit beside the backward pass."""
    return compute + reduce - min(hidden * reduce, BACKWARD * compute)


def step_seconds(
    work: Work, device: Device, network: Network, gpus: int, images: float
) -> float:
    """A step of ``images`` on each of the GPUs."""
    compute = compute_seconds(work, device, images)
    return with_overlap(compute, reduce_seconds(work, network, gpus), work.hidden)


def speedup(
    work: Work, device: Device, network: Network, gpus: int, batch: int, *, grown: bool
) -> float:
    """Images a second over those of one GPU with a batch of ``batch``.

    The batch is shared out among the GPUs, or ``grown``: each has so many.
    """
    one = compute_seconds(work, device, batch)
    each = batch if grown else batch / gpus
    many = step_seconds(work, device, network, gpus, each)
    return one / many * (gpus if grown else 1)


def efficiency(
    work: Work, device: Device, network: Network, gpus: int, batch: int, *, grown: bool
) -> float:
    """The speed-up over the number of GPUs."""
    return speedup(work, device, network, gpus, batch, grown=grown) / gpus


# ----------------------------------------------------------------------------
# What so many GPUs need of the recipe.


def divides(batch: int, gpus: int) -> bool:
    """Whether every GPU has the same whole number of images (as per_rank demands)."""
    return batch % gpus == 0


def grown_lr(lr: float, factor: float, rule: Literal["sqrt", "linear"]) -> float:
    """The learning rate for a batch that is ``factor`` times as large.

    The square root is Adam's rule (Malladi et al., 2022, which scales its betas too), the
    line SGD's (Goyal et al., 2017), an upper bound here.
    """
    return lr * (math.sqrt(factor) if rule == "sqrt" else factor)


# ----------------------------------------------------------------------------
# The constants out of measurements. P = points, an all-reduce of some bytes in some buckets.


@dataclass(frozen=True)
class Reduction:
    """A measured all-reduce."""

    ranks: int
    num_bytes: float
    buckets: int
    seconds: float

    @property
    def hops(self) -> int:
        """Of a ring, in all buckets."""
        return 2 * (self.ranks - 1) * self.buckets


def fit_link(points: Sequence[Reduction]) -> tuple[float, float]:
    """(bandwidth in bytes a second, latency of a hop in seconds) that explain the points best.

    In relative terms, so that slow points do not outweigh quick ones.
    """
    seconds = np.array([p.seconds for p in points])
    columns = [ring_bytes(p.num_bytes, p.ranks) for p in points], [p.hops for p in points]
    rows = np.array(columns).T / seconds[:, None]  # (P, 2)
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
