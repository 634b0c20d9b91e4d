"""What a trial of a search costs beside the same run by the train command.

    python -m benchmarks.search_overhead [--images 24000] [--repetitions 2]

One Ray cluster for all. Each repetition is a search of the digits that stops no trial,
and then the runs of its trials once more by the train command's own function, a process each.
A trial's time is from the end of the trial before it to its own end, so that all between them
counts; a run's from the start of its process to its end.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.commands import run_quietly
from benchmarks.timing import Bench, Samples, arguments, ratio_of_means, table, timed
from cbdm_scale.cluster.connect import join
from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import from_dict
from cbdm_scale.runs.launch import launch_run
from cbdm_scale.storage.run_dir import RunDir

TRIAL, ALONE = "as a trial", "the run alone"


def search(args: argparse.Namespace, name: str) -> list[tuple[float, str]]:
    """(when it ended, id) of the trials of a search, in that order."""
    words = [
        *(sys.executable, "tune/search_tau.py", "--dataset", "digits_lt", "--name", name),
        *("--trials", str(args.trials + 1), "--scheduler", "all", "--finalists", "0"),
        *("--at-once", "1", "--train.total-images", str(args.images)),
        *("--cluster.storage", args.storage, "--cluster.workers", str(args.workers)),
    ]
    run_quietly(words)
    records = Path(args.storage, "search", name, "records").glob("*.json")
    trials = [json.loads(record.read_text("utf-8")) for record in records]
    return sorted((trial["rungs"][-1]["at"], trial["id"]) for trial in trials)


def repetition(args: argparse.Namespace, number: int) -> Iterator[tuple[float, float]]:
    """Seconds of each trial but the first, before which there is none, and of its run alone."""
    name = f"overhead-{number}"
    trials = search(args, name)
    runs, module = Path(args.storage, "search", name, "trials"), "benchmarks.search_overhead"
    for (before, _), (ended, trial) in pairwise(trials):
        seconds = ended - before
        config = str(runs / f"{name}-{trial}" / RunDir.CONFIG)
        words = [
            sys.executable,
            "-m",
            module,
            "--alone",
            config,
            "--name",
            f"{name}-{trial}",
        ]
        alone = timed(lambda w=words: run_quietly([*w, "--storage", f"{args.storage}/alone"]))
        print(f"{trial}: {seconds:.1f} s as a trial, {alone.wall:.1f} s alone", flush=True)
        yield seconds, alone.wall


def main() -> None:
    parser = arguments(__doc__, repetitions=2)
    parser.add_argument("--storage", default="", help="a new folder if not given")
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        config = from_dict(json.loads(Path(args.alone).read_text()))
        options = {"name": args.name, "cluster.storage": args.storage}
        launch_run(with_options(config, options))
        return
    args.storage = args.storage or tempfile.mkdtemp()
    os.environ["RAY_ADDRESS"] = "local"
    join()
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    bench, samples = Bench(args), {TRIAL: Samples(), ALONE: Samples()}
    for number in range(args.repetitions):
        for pair in repetition(args, number):
            for one, seconds in zip(samples.values(), pair, strict=True):
                one.wall.append(seconds)
                one.cpu.append(math.nan)
        bench.keep({name: one.wall for name, one in samples.items()})
    ratio = ratio_of_means(samples[TRIAL].wall, samples[ALONE].wall)
    pairs = len(samples[TRIAL].wall)
    bench.finish(table(samples, over=[ALONE]), f"means: {ratio} over {pairs} pairs")


if __name__ == "__main__":
    main()
