"""Images per second that reach the training process, from four loaders side by side.

    python -m benchmarks.data [--photos DIR] [--sizes 32 64 128] [--cores 1 2] [--turn 8]

Loaders live at once and take turns in shuffled order; what a loader has read ahead is thrown
away before its turn, and it comes to rest after it. One core: everything on it, no processes.
Two cores: two loader processes for each loader. Ray Data has a table of its own against ours:
it reads on between its turns, which slows the others down and makes itself look quicker, the
more so the shorter the turns (--turn 128 batches is long enough). --photos: a folder of .JPEG
files, any depth; without it the images are procedural.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.loaders import BATCH, LOADERS, Batches, write_data
from benchmarks.timing import Bench, arguments, in_new_process, table

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


def measure(given: Mapping[str, Any], size: int, cores: int, loaders: Sequence[str]) -> None:
    """Loaders at one size on so many cores; prints a table."""
    args = argparse.Namespace(**given)
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    torch.set_num_threads(1)
    args.raw = f"{args.raw}-{size}px-{cores}-{len(loaders)}.json" if args.raw else ""
    bench = Bench(args, size=size, cores=cores, batch=BATCH, turn=args.turn)
    processes = 0 if cores == 1 else cores
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CBDM_SCALE_CACHE"] = f"{folder}/index"
        write_data(Path(folder), size, args.photos)
        turns = {
            name: Turn(LOADERS[name](Path(folder), processes), args.turn, size)
            for name in loaders
        }
        samples = bench.compare(turns, prepare=lambda name: turns[name].prepare())
    if processes:  # the work is done by others
        for one in samples.values():
            one.cpu = [math.nan] * len(one.cpu)
    ours = [name for name in samples if name.startswith("ours")]
    bench.finish(table(samples, over=ours, items=args.turn * BATCH))
    if "Ray Data" in loaders:
        import ray

        ray.shutdown()


def main() -> None:
    """Each size and number of cores in a process of its own: affinity is inherited."""
    sizes, cores = [32, 64, 128], [1, 2]
    args = arguments(__doc__, photos="", sizes=sizes, cores=cores, turn=8, loaders=LOADERS)
    without_ray = [name for name in LOADERS if name != "Ray Data"]
    for size in args.sizes:
        for cores in args.cores:
            every = args.loaders == list(LOADERS)
            for loaders in [without_ray, RAY] if every else [args.loaders]:
                in_new_process(measure, vars(args), size, cores, loaders)


if __name__ == "__main__":
    main()
