"""Interleaved repetitions, medians and bootstrap intervals for a machine that others use too.

Shapes: R = repetitions (each runs every variant once, in shuffled order).
"""

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor


@dataclass
class Samples:
    """Seconds of one variant, one entry a repetition."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # of all threads of this process


def interleave(
    variants: Mapping[str, Callable[[], None]],
    repetitions: int,
    keep: Callable[[dict[str, Samples]], None],
    seed: int = 0,
    prepare: Callable[[str], None] = lambda name: None,
) -> dict[str, Samples]:
    """Run every variant once a repetition, in an order shuffled anew each time.

    ``keep`` gets all figures after each repetition, so that a broken run is not lost;
    ``prepare`` is called, untimed, before each variant.
    """
    order, samples = random.Random(seed), {name: Samples() for name in variants}
    for repetition in range(repetitions):
        for name in order.sample(list(variants), len(variants)):
            prepare(name)
            wall, cpu = time.perf_counter(), time.process_time()
            variants[name]()
            samples[name].wall.append(time.perf_counter() - wall)
            samples[name].cpu.append(time.process_time() - cpu)
        last = " | ".join(f"{n} {s.wall[-1]:.2f} ({s.cpu[-1]:.2f})" for n, s in samples.items())
        print(f"{repetition + 1:>3}/{repetitions} wall (CPU) seconds: {last}", flush=True)
        keep(samples)
    return samples


def resample(count: int, draws: int = 10_000, seed: int = 0) -> Tensor:
    """Whole repetitions drawn with replacement: (draws, count) positions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(count, (draws, count), generator=generator)


@dataclass(frozen=True)
class Ratio:
    """A ratio and its 95 % bootstrap interval over the repetitions."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def _ratio(top: Tensor, bottom: Tensor, middle: Callable[[Tensor], Tensor]) -> Ratio:
    assert len(top) == len(bottom), "the variants share their repetitions"
    picks = resample(len(top))
    ratios = middle(top[picks]) / middle(bottom[picks])
    low, high = ratios.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return Ratio(float(middle(top) / middle(bottom)), low, high)


def median(values: Tensor) -> Tensor:
    """Median along the last axis; the mean of the middle two if their number is even."""
    return values.quantile(0.5, dim=-1)


def ratio_of_medians(top: list[float], bottom: list[float]) -> Ratio:
    """For wall time, whose long tail is other people's work."""
    return _ratio(torch.tensor(top).double(), torch.tensor(bottom).double(), median)


def ratio_of_means(top: list[float], bottom: list[float]) -> Ratio:
    """For work that differs from repetition to repetition: the mean is what a run pays."""
    return _ratio(
        torch.tensor(top).double(), torch.tensor(bottom).double(), lambda x: x.mean(dim=-1)
    )


def processor() -> str:
    """The processor's name, and whether it multiplies bf16 in hardware."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    about = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    about = {key.strip(): value.strip() for key, value in about.items()}
    flags = set(about.get("flags", "").split())
    bf16 = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags] or ["no bf16"]
    numbers = f"family {about.get('cpu family', '?')} model {about.get('model', '?')}"
    return f"{about.get('model name', 'unknown processor')} ({numbers}; {', '.join(bf16)})"


def write_raw(path: str, about: dict[str, object], samples: Mapping[str, Samples]) -> None:
    """Every single figure, as JSON, so that another statistic can be taken later."""
    raw = {name: {"wall_s": s.wall, "cpu_s": s.cpu} for name, s in samples.items()}
    Path(path).write_text(json.dumps({**about, "samples": raw}, indent=1) + "\n")
