"""Images per second that reach the training process, from four loaders side by side.

    python -m benchmarks.data [--photos DIR] [--sizes 32 64 128] [--cores 1 2] [--raw FILE]

Loaders live at once and take turns in shuffled order; what a loader has read ahead is thrown
away before its turn, and it comes to rest after it. One core: everything on it, no processes.
Two cores: two loader processes for each loader. Ray Data has a table of its own against ours:
it reads on between its turns, which slows the others down and makes itself look quicker, the
more so the shorter the turns (--turn 128 is long enough).
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.loaders import BATCH, LOADERS, Batches, write_data
from benchmarks.timing import Bench, arguments, table

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


def measure(args: argparse.Namespace, size: int, cores: int) -> None:
    """All loaders at one size on so many cores; prints a table."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    torch.set_num_threads(1)
    args.raw = f"{args.raw}-{size}px-{cores}-{len(args.loaders)}.json" if args.raw else ""
    bench = Bench(args, size=size, cores=cores, batch=BATCH, turn=args.turn)
    processes = 0 if cores == 1 else cores
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CBDM_SCALE_CACHE"] = f"{folder}/index"
        write_data(Path(folder), size, args.photos)
        turns = {}
        for name in args.loaders:
            turns[name] = Turn(LOADERS[name](Path(folder), processes), args.turn, size)
        samples = bench.compare(turns, prepare=lambda name: turns[name].prepare())
    if processes:  # the work is done by others
        for one in samples.values():
            one.cpu = [math.nan] * len(one.cpu)
    ours = [name for name in samples if name.startswith("ours")]
    bench.finish(table(samples, over=ours, items=args.turn * BATCH))
    if "Ray Data" in args.loaders:
        import ray

        ray.shutdown()
    sys.stdout.flush()
    os._exit(0)  # the loaders' processes go with this one


def main(argv: list[str]) -> None:
    """Each size and number of cores in a process of its own: affinity is inherited."""
    parser = arguments(__doc__)
    parser.add_argument("--photos", type=Path, help="folder of .JPEG files, any depth")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turn", type=int, default=8, help="batches of 64 a repetition")
    parser.add_argument("--loaders", nargs="+", default=[], choices=LOADERS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        measure(args, args.sizes[0], args.cores[0])
    without_ray = [name for name in LOADERS if name != "Ray Data"]
    for size in args.sizes:
        for cores in args.cores:
            for loaders in [args.loaders] if args.loaders else [without_ray, RAY]:
                where = ["--one", "--sizes", str(size), "--cores", str(cores)]
                command = [sys.executable, "-m", "benchmarks.data", *argv, *where, "--loaders"]
                subprocess.run([*command, *loaders], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
