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
from benchmarks.timing import (
    Bench,
    Samples,
    arguments,
    in_new_process,
    ratio_of_means,
    table,
    timed,
)
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


def train(config: str, name: str, storage: str) -> None:
    """The run of a configuration file, by the train command's own function."""
    options = {"name": name, "cluster.storage": storage}
    launch_run(with_options(from_dict(json.loads(Path(config).read_text())), options))


def repetition(args: argparse.Namespace, number: int) -> Iterator[tuple[float, float]]:
    """Seconds of each trial but the first, before which there is none, and of its run alone."""
    search_name = f"overhead-{number}"
    trials = search(args, search_name)
    runs = Path(args.storage, "search", search_name, "trials")
    for (before, _), (ended, trial) in pairwise(trials):
        name = f"{search_name}-{trial}"
        given = str(runs / name / RunDir.CONFIG), name, f"{args.storage}/alone"
        alone = timed(lambda given=given: in_new_process(train, *given)).wall
        print(f"{trial}: {ended - before:.1f} s as a trial, {alone:.1f} s alone", flush=True)
        yield ended - before, alone


def main() -> None:
    args = arguments(__doc__, repetitions=2, storage="", images=24_000, trials=3, workers=1)
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
