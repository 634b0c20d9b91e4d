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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import fmean, median
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
    prepare: Callable[[str], object] = lambda name: None,
) -> Iterator[dict[str, Samples]]:
    """Run every variant once a repetition, in shuffled order: all figures after each of them.

    ``prepare`` is called, untimed, before each turn.
    """
    order, samples = random.Random(0), {name: Samples() for name in variants}
    for _ in range(repetitions):
        for name in order.sample(list(variants), len(variants)):
            prepare(name)
            wall, cpu = time.perf_counter(), time.process_time()
            cost = variants[name]()
            here = Cost(time.perf_counter() - wall, time.process_time() - cpu)
            cost = cost or here
            samples[name].wall.append(cost.wall)
            samples[name].cpu.append(cost.cpu)
        yield samples


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
    return _ratio(top, bottom, lambda values: values.quantile(0.5, dim=-1))


def ratio_of_means(top: Sequence[float], bottom: Sequence[float]) -> Ratio:
    """For CPU time, and for work that differs from repetition to repetition."""
    return _ratio(top, bottom, lambda values: values.mean(dim=-1))


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
        kinds += [("cpu", fmean, ratio_of_means, "items a CPU second", f"CPU {unit} (mean)")]
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
        prepare: Callable[[str], object] = lambda name: None,
        repetitions: int = 0,
    ) -> dict[str, Samples]:
        """``interleave``, a line for each repetition, and all figures kept if it breaks."""
        total, samples = repetitions or self.repetitions, dict[str, Samples]()
        for done, samples in enumerate(interleave(variants, total, prepare=prepare), 1):
            last = (f"{n} {s.wall[-1]:.2f} ({s.cpu[-1]:.2f})" for n, s in samples.items())
            print(f"{done:>3}/{total} wall (CPU) seconds: {' | '.join(last)}", flush=True)
            self.keep({n: {"wall_s": s.wall, "cpu_s": s.cpu} for n, s in samples.items()})
        return samples

    def keep(self, figures: Mapping[str, Any]) -> None:
        """Every single figure, as JSON, so that another statistic can be taken later."""
        self.figures |= figures
        if self.raw:
            whole = {**self.about, "samples": self.figures}
            Path(self.raw).parent.mkdir(parents=True, exist_ok=True)
            Path(self.raw).write_text(json.dumps(whole, indent=1) + "\n")

    def finish(self, *tables: str) -> None:
        """Print all: the tables make no sense without the machine."""
        self.about["load average after"] = round(os.getloadavg()[0], 1)
        self.keep({})
        for key, value in self.about.items():
            print(f"{key}: {value}")
        print("", *tables, sep="\n\n")


def arguments(doc: str | None, repetitions: int = 30, **options: Any) -> argparse.Namespace:
    """``parse`` with the options that all benchmarks have: turns, and a file for every figure.

    repetitions: the default, 0 for a benchmark that takes no turns.
    """
    turns = {"repetitions": repetitions} if repetitions else {}
    return parse(doc, **turns, raw="", **options)


def parse(
    doc: str | None, words: Sequence[str] | None = None, **options: Any
) -> argparse.Namespace:
    """What was typed: an option for each keyword, which ``doc`` explains.

    Its value is the default. A type: it must be given. False: a switch. A list: several of the
    kind. A tuple: one of these, the first by default. A dict: some of its keys, by default all.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=raw)
    for name, value in options.items():
        how: dict[str, Any] = {"default": value, "type": type(value)}
        match value:
            case type():
                how = {"required": True, "type": value}
            case False:
                how = {"action": "store_true"}
            case list():
                how |= {"nargs": "+", "type": type(value[0])}
            case tuple():
                how |= {"default": value[0], "type": str, "choices": value}
            case dict():
                how |= {"default": list(value), "type": str, "choices": value, "nargs": "+"}
        parser.add_argument("--" + name.replace("_", "-"), **how)
    return parser.parse_args(words)


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


def python_words(work: Callable[..., Any], *given: Any) -> list[str]:
    """A command that calls a function and prints, last, what it returns; both as JSON."""
    spec = sys.modules[work.__module__].__spec__
    assert spec
    name = f"{spec.name}:{work.__name__}"
    return [sys.executable, "-m", "benchmarks.timing", name, json.dumps(given)]


def in_new_process(
    work: Callable[..., Any],
    *given: Any,
    env: Mapping[str, object] | None = None,
    prefix: Sequence[str] = (),
) -> Any:
    """What a function returns for ``given``, in a process that has done nothing before.

    What it prints is printed. prefix: a command to start Python under.
    """
    command = [*prefix, *python_words(work, *given)]
    whole, last = os.environ | {k: str(v) for k, v in (env or {}).items()}, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=whole) as process:
        assert process.stdout
        for line in process.stdout:
            print(last, end="", flush=True)
            last = line
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(last)


if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    found = getattr(import_module(module), function)(*json.loads(sys.argv[2]))
    print(json.dumps(found), flush=True)
    os._exit(0)  # what it has started goes with it
