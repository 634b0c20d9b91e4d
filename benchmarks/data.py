"""Images per second that reach the training process, from four loaders side by side.

    python -m benchmarks.data [--photos DIR] [--sizes 32 64 128] [--cores 1 2] [--raw FILE]

Loaders live at once and take turns in shuffled order; what a loader has read ahead is thrown
away before its turn, and it comes to rest after it. One core: everything on it, no processes.
Two cores: two loader processes for each loader. Ray Data has a table of its own against ours:
it reads on between its turns, which slows the others down and makes itself look quicker, the
more so the shorter the turns (--turn 128 is long enough).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.loaders import BATCH, LOADERS, Batches, photos, procedural, write_data
from benchmarks.timing import (
    Samples,
    interleave,
    median,
    processor,
    ratio_of_means,
    ratio_of_medians,
    write_raw,
)

AHEAD = 10
"""Batches thrown away before a turn: more than any loader but Ray Data reads ahead."""
RAY = ["ours, first epoch", "ours, later epochs", "Ray Data"]


class Turn:
    """A loader's turn: its batches, timed by the caller, after those that it had ready."""

    def __init__(self, batches: Batches, turn: int, size: int) -> None:
        self.batches, self.turn = batches, turn
        x, y = next(batches)
        assert x.shape == (BATCH, 3, size, size) and x.dtype == torch.float32
        assert y.shape == (BATCH,) and -1 <= float(x.min()) <= float(x.max()) <= 1

    def prepare(self) -> None:
        time.sleep(0.3)  # the loader before comes to rest
        for _ in range(AHEAD):
            next(self.batches)

    def __call__(self) -> None:
        for _ in range(self.turn):
            next(self.batches)


def measure(options: argparse.Namespace, size: int, cores: int) -> None:
    """All loaders at one size on so many cores; prints the rows of a table."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    torch.set_num_threads(1)
    processes = 0 if cores == 1 else cores
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CBDM_SCALE_CACHE"] = f"{folder}/index"
        source = photos(options.photos, size) if options.photos else procedural(size)
        write_data(Path(folder), size, source)
        turns = {}
        for name in options.loaders:
            turns[name] = Turn(LOADERS[name](Path(folder), processes), options.turn, size)
        about = {"size": size, "cores": cores, "batch": BATCH, "processor": processor()}
        raw = f"{options.raw}-{size}px-{cores}-{len(turns)}.json" if options.raw else ""
        samples = interleave(
            turns,
            options.repetitions,
            lambda found: write_raw(raw, about, found) if raw else None,
            prepare=lambda name: turns[name].prepare(),
        )
    about_row = f"{size} px, {cores} core{'s' * (cores > 1)}, {options.repetitions} turns"
    print_table(about_row, samples, options.turn * BATCH, in_this_process=not processes)
    if "Ray Data" in options.loaders:
        import ray

        ray.shutdown()
    os._exit(0)  # the loaders' processes go with this one


def print_table(
    what: str, samples: dict[str, Samples], images: int, *, in_this_process: bool
) -> None:
    """Images per second, and how many times as many ours gives; means of CPU time on one core.

    The mean, because a plain WebDataset's work differs from turn to turn with its shuffle.
    """
    ours = [name for name in samples if name.startswith("ours")]
    print(f"RESULT | {what} | images/s | {' | '.join(ours)} | CPU us an image | {ours} |")
    for name, found in samples.items():
        speed = images / float(median(torch.tensor(found.wall).double()))
        row = [f"{speed:,.0f}"]
        row += [str(ratio_of_medians(found.wall, samples[mine].wall)) for mine in ours]
        if in_this_process:
            row.append(f"{sum(found.cpu) / len(found.cpu) / images * 1e6:.0f}")
            row += [str(ratio_of_means(found.cpu, samples[mine].cpu)) for mine in ours]
        print(f"RESULT | {name} | {' | '.join(row)} |", flush=True)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of .JPEG files, any depth")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--turn", type=int, default=8, help="batches of 64 a repetition")
    parser.add_argument("--loaders", nargs="+", default=[], choices=LOADERS)
    parser.add_argument("--raw", default="", help="beginning of a file name for all figures")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Each size and number of cores in a process of its own: affinity is inherited."""
    options = parse(argv)
    if options.one:
        measure(options, options.sizes[0], options.cores[0])
    without_ray = [name for name in LOADERS if name != "Ray Data"]
    for size in options.sizes:
        for cores in options.cores:
            for loaders in [options.loaders] if options.loaders else [without_ray, RAY]:
                where = ["--one", "--sizes", str(size), "--cores", str(cores)]
                command = [sys.executable, "-m", "benchmarks.data", *argv, *where, "--loaders"]
                subprocess.run([*command, *loaders], check=True)
    print(json.dumps({"processor": processor(), "load": os.getloadavg()}))


if __name__ == "__main__":
    main(sys.argv[1:])
