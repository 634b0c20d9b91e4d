"""The measurement: jobs for `ranks.run`, the tables that come out, and the fitted constants."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.scaling import variants as v
from benchmarks.scaling.fit import Reduction, fit_link, hidden_share
from benchmarks.scaling.model import with_overlap
from benchmarks.scaling.ranks import Command, Job, Measured, here, run
from benchmarks.scaling.wire import ring_bytes
from benchmarks.timing import median, ratio_of_medians

EVERYTHING = [
    v.LOCAL,
    v.PRODUCT,
    v.ALONE,
    v.AFTER,
    v.SMALL,
    v.ALONE_1,
    v.ONE,
    v.BF16,
    v.MANY_LOCAL,
    v.MANY,
]
FEW = [v.LOCAL, v.PRODUCT, v.ALONE, v.ALONE_1, v.SMALL]
"""What the fit needs, for the further numbers of ranks."""


@dataclass(frozen=True)
class Constants:
    """What the model takes from a measurement."""

    bandwidth: float
    """Bytes a second of a rank in a ring, each direction."""
    latency: float
    """Seconds of a hop."""
    hidden: float
    """Share that hid of the communication that could have, from 0 to 1."""


def middle(values: list[float]) -> float:
    return float(median(torch.tensor(values).double()))


def measure(
    ranks: int,
    *,
    repetitions: int,
    channels: int,
    images: int,
    everything: bool,
    command: Command = here,
    interface: str = "lo",
) -> Measured:
    """One group of ranks, with all variants or those that the fit needs."""
    names = EVERYTHING if everything else FEW
    return run(Job(ranks, names, repetitions, channels, images), command, interface)


def wire_table(all_measured: list[Measured]) -> str:
    """Bytes that a rank sends in a step, against the least that any all-reduce sends."""
    lines = [
        "| ranks | variant | gradients MB | sent by a rank MB | ring bound MB | sent / bound |",
        "|---" * 6 + "|",
    ]
    for m in all_measured:
        for name in (v.PRODUCT, v.SMALL, v.ONE, v.MANY, v.BF16):
            if name in m.sent:
                size = m.gradient_bytes / (2 if name == v.BF16 else 1)
                sent, bound = max(m.sent[name]), ring_bytes(size, m.ranks)
                cells = [m.gradient_bytes / 1e6, sent / 1e6, bound / 1e6]
                words = " | ".join(f"{cell:.3f}" for cell in cells)
                lines.append(f"| {m.ranks} | {name} | {words} | {sent / bound:.4f} |")
    return "\n".join(lines)


def time_table(m: Measured) -> str:
    """Medians, and ratios to the product's own gradient."""
    lines = [
        f"| {m.ranks} ranks | wall s (median) | / without communication "
        "| CPU s a rank (median) |",
        "|---" * 4 + "|",
    ]
    for name, wall in m.wall_s.items():
        base = m.wall_s[v.MANY_LOCAL if name.startswith("4 micro") else v.LOCAL]
        cells = [f"{middle(wall):.3f}", str(ratio_of_medians(wall, base))]
        lines.append(f"| {name} | {' | '.join(cells)} | {middle(m.cpu_s[name]):.3f} |")
    return "\n".join(lines)


def fit(all_measured: list[Measured]) -> Constants:
    """The constants of one network, from every group of two or more ranks on it."""
    points, shares = [], []
    for m in all_measured:
        if m.ranks == 1:
            continue
        for name, buckets in ((v.ALONE, m.buckets), (v.ALONE_1, m.small_buckets)):
            seconds = middle(m.wall_s[name])
            points.append(Reduction(m.ranks, m.gradient_bytes, len(buckets), seconds))
        alone, local = middle(m.wall_s[v.ALONE]), middle(m.wall_s[v.LOCAL])
        shares.append(hidden_share(local, alone, middle(m.wall_s[v.PRODUCT])))
    bandwidth, latency = fit_link(points)
    return Constants(bandwidth, latency, min(max(sum(shares) / len(shares), 0), 1))


def check_table(all_measured: list[Measured], constants: Constants) -> str:
    """The model's step beside the measured one: what it was fitted to, and how well."""
    lines = ["| ranks | measured s | model s | model / measured |", "|---" * 4 + "|"]
    for m in all_measured:
        local = middle(m.wall_s[v.LOCAL])
        if m.ranks == 1:
            continue
        reduce = (
            ring_bytes(m.gradient_bytes, m.ranks) / constants.bandwidth
            + 2 * (m.ranks - 1) * len(m.buckets) * constants.latency
        )
        model = with_overlap(local, reduce, constants.hidden)
        real = middle(m.wall_s[v.PRODUCT])
        lines.append(f"| {m.ranks} | {real:.3f} | {model:.3f} | {model / real:.3f} |")
    return "\n".join(lines)


def keep(path: str, about: dict[str, object], all_measured: dict[str, list[Measured]]) -> None:
    """Every single figure, as JSON."""
    raw = {rate: [asdict(m) for m in group] for rate, group in all_measured.items()}
    Path(path).write_text(json.dumps({**about, "measured": raw}, indent=1) + "\n")
