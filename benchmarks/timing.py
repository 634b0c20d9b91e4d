"""One way to time things on a machine that others use too.

Variants take turns: every repetition runs each of them once, in an order shuffled anew. Wall
time is reported by its median, since its long tail is other people's work, and CPU time by its
mean, which is what a run pays. Ratios come with 95 % bootstrap intervals over repetitions.

Shapes: R = repetitions.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cost:
    """Of one turn: seconds on the clock, and CPU seconds of all threads that did the work."""

    wall: float
    cpu: float = math.nan
    """NaN where nobody can say: the work was done by processes of others."""


Variant = Callable[[], Cost | None]
"""A turn. What returns None is timed in this process; workers say themselves what they took."""


@dataclass
class Samples:
    """Seconds of one variant, one entry a repetition."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def timed(work: Callable[[], object]) -> Cost:
    """What a call costs in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def interleave(
    variants: Mapping[str, Variant],
    repetitions: int,
    seed: int = 0,
    *,
    prepare: Callable[[str], None] = lambda name: None,
    after: Callable[[dict[str, Samples]], None] = lambda samples: None,
    log: Callable[[str], None] = lambda line: print(line, flush=True),
) -> dict[str, Samples]:
    """Run every variant once a repetition, in shuffled order.

    ``prepare`` is called, untimed, before each turn; ``after`` gets all figures after each
    repetition, so that a broken run is not lost.
    """
    order, samples = random.Random(seed), {name: Samples() for name in variants}
    for repetition in range(repetitions):
        for name in order.sample(list(variants), len(variants)):
            prepare(name)
            wall, cpu = time.perf_counter(), time.process_time()
            cost = variants[name]()
            here = Cost(time.perf_counter() - wall, time.process_time() - cpu)
            cost = cost or here
            samples[name].wall.append(cost.wall)
            samples[name].cpu.append(cost.cpu)
        last = " | ".join(f"{n} {s.wall[-1]:.2f} ({s.cpu[-1]:.2f})" for n, s in samples.items())
        log(f"{repetition + 1:>3}/{repetitions} wall (CPU) seconds: {last}")
        after(samples)
    return samples


# ----------------------------------------------------------------------------
# Statistics.


@dataclass(frozen=True)
class Ratio:
    """A ratio and its 95 % bootstrap interval over the repetitions."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def median(values: Sequence[float]) -> float:
    """The mean of the middle two if their number is even."""
    return _median(torch.tensor(values).double()).item()


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _median(values: Tensor) -> Tensor:
    return values.quantile(0.5, dim=-1)


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=-1)


def _ratio(
    top: Sequence[float], bottom: Sequence[float], middle: Callable[[Tensor], Tensor]
) -> Ratio:
    assert len(top) == len(bottom), "the variants share their repetitions"
    a, b = torch.tensor(top).double(), torch.tensor(bottom).double()
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(a), (10_000, len(a)), generator=generator)
    ratios = middle(a[picks]) / middle(b[picks])
    low, high = ratios.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return Ratio(float(middle(a) / middle(b)), low, high)


def ratio_of_medians(top: Sequence[float], bottom: Sequence[float]) -> Ratio:
    """For wall time. Whole repetitions are drawn with replacement."""
    return _ratio(top, bottom, _median)


def ratio_of_means(top: Sequence[float], bottom: Sequence[float]) -> Ratio:
    """For CPU time, and for work that differs from repetition to repetition."""
    return _ratio(top, bottom, _mean)


# ----------------------------------------------------------------------------
# What is printed and kept.


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; cells are written as ``str`` writes them."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def table(
    samples: Mapping[str, Samples],
    over: Sequence[str] = (),
    under: Sequence[str] = (),
    *,
    items: int = 0,
    unit: str = "s",
) -> str:
    """Markdown: wall and CPU time of each variant, beside others.

    over: columns "it / other". under: columns "other / it". items: in a turn, for items a
    second in place of seconds. unit: "s" or "ms".
    """
    ratios = [(f"/ {name}", name, False) for name in over]
    ratios += [(f"{name} / it", name, True) for name in under]
    kinds = [("wall", median, ratio_of_medians, "items/s", f"wall {unit} (median)")]
    if not any(math.isnan(value) for s in samples.values() for value in s.cpu):
        kinds += [("cpu", mean, ratio_of_means, "items a CPU second", f"CPU {unit} (mean)")]
    head, rows = [""], [[name] for name in samples]
    for kind, middle, ratio, speed, seconds in kinds:
        head += [speed if items else seconds, *(words for words, _, _ in ratios)]
        for row, s in zip(rows, samples.values(), strict=True):
            mine: list[float] = getattr(s, kind)
            number = items / middle(mine) if items else middle(mine) * (1e3, 1)[unit == "s"]
            row.append(f"{number:,.4g}" if number < 1000 else f"{number:,.0f}")
            for _, name, inverse in ratios:
                other = getattr(samples[name], kind)
                if s is samples[name]:
                    row.append("1")
                else:
                    row.append(str(ratio(other, mine) if inverse else ratio(mine, other)))
    return markdown(head, rows)


class Bench:
    """A benchmark's record: the machine, how busy it was, every figure."""

    def __init__(self, args: argparse.Namespace, **about: object) -> None:
        """args: with ``raw`` and, where turns are taken, ``repetitions``."""
        self.raw: str = args.raw
        self.repetitions: int = getattr(args, "repetitions", 0)
        self.figures: dict[str, Any] = {}
        self.about: dict[str, Any] = {
            "processor": processor(),
            "torch": torch.__version__,
            **about,
            **({"repetitions": self.repetitions} if self.repetitions else {}),
            "load average before": round(os.getloadavg()[0], 1),
        }

    def compare(
        self,
        variants: Mapping[str, Variant],
        prepare: Callable[[str], None] = lambda name: None,
        repetitions: int | None = None,
    ) -> dict[str, Samples]:
        """``interleave``, and all figures kept."""

        def keep(samples: dict[str, Samples]) -> None:
            self.keep({n: {"wall_s": s.wall, "cpu_s": s.cpu} for n, s in samples.items()})

        times = self.repetitions if repetitions is None else repetitions
        return interleave(variants, times, prepare=prepare, after=keep)

    def keep(self, figures: Mapping[str, Any]) -> None:
        """Every single figure, as JSON, so that another statistic can be taken later."""
        self.figures |= figures
        if self.raw:
            whole = {**self.about, "samples": self.figures}
            Path(self.raw).write_text(json.dumps(whole, indent=1) + "\n")

    def finish(self, *tables: str) -> None:
        """Print all: the tables make no sense without the machine."""
        self.about["load average after"] = round(os.getloadavg()[0], 1)
        self.keep({})
        for key, value in self.about.items():
            print(f"{key}: {value}")
        print("", *tables, sep="\n\n")


def arguments(doc: str | None, repetitions: int = 30) -> argparse.ArgumentParser:
    """A parser of the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, repetitions)
    return parser


def add_options(parser: argparse.ArgumentParser, repetitions: int) -> None:
    """repetitions: the default, 0 for a benchmark that takes no turns."""
    if repetitions:
        parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--raw", default="", help="JSON file for every single figure")


# ----------------------------------------------------------------------------
# The machine.


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


def memory_mb(kind: str) -> float:
    """VmRSS, resident now, or VmHWM, its peak, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(kind))) / 1024


def in_new_process(
    module: str, words: Sequence[object], env: Mapping[str, str], prefix: Sequence[str] = ()
) -> Any:
    """What ``python -m module`` prints as JSON, in a process that has done nothing before."""
    command = [*prefix, sys.executable, "-m", module, *map(str, words)]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | env)
    return json.loads(found.stdout)
