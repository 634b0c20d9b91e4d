"""What a trial of a search costs beside the same run by the train command.

    python -m benchmarks.search_overhead [--images 24000] [--repetitions 2]

One Ray cluster for all. Each repetition is a search of the digits that stops no trial,
and then the runs of its trials once more by the train command's own function, a process each.
A trial's time is from the end of the trial before it to its own end, so that all between them
counts; a run's from the start of its process to its end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.timing import processor, ratio_of_means
from cbdm_scale.cluster.connect import join
from cbdm_scale.config.schema import from_dict
from cbdm_scale.storage.folder import Storage
from cbdm_scale.train import start
from tune.ledger import Ledger, Trial


@dataclass(frozen=True)
class Pair:
    """Seconds of the same run, twice."""

    as_trial: float
    alone: float


def search(args: argparse.Namespace, name: str) -> list[Trial]:
    """Trials of a search, in the order in which they ended."""
    words = [
        *(sys.executable, "tune/search_tau.py", "--dataset", "digits_lt", "--name", name),
        *("--trials", str(args.trials + 1), "--scheduler", "all", "--finalists", "0"),
        *("--at-once", "1", "--train.total-images", str(args.images)),
        *("--cluster.storage", args.storage, "--cluster.workers", str(args.workers)),
    ]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ledger = Ledger(Storage(args.storage).child(f"search/{name}"))
    return sorted(ledger.of_kind("control", "search"), key=lambda t: t.rungs[-1].at)


def run_alone(file: Path, storage: str, name: str) -> float:
    """Seconds of the run of a trial, by a process of its own."""
    before = time.monotonic()
    words = [sys.executable, "-m", "benchmarks.search_overhead", "--alone", str(file)]
    words += ["--storage", storage, "--name", name]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - before


def repetition(args: argparse.Namespace, number: int) -> list[Pair]:
    """The trials but the first, before which there is none, each beside its run alone."""
    name, found = f"overhead-{number}", []
    trials = search(args, name)
    runs = Path(args.storage, "search", name, "trials")
    for before, trial in zip(trials, trials[1:], strict=False):
        seconds = trial.rungs[-1].at - before.rungs[-1].at
        config = runs / f"{name}-{trial.id}" / "config.json"
        alone = run_alone(config, f"{args.storage}/alone", f"{name}-{trial.id}")
        found.append(Pair(seconds, alone))
        print(f"{trial.id}: {seconds:.1f} s as a trial, {alone:.1f} s alone", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="", help="a new folder if not given")
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        config = from_dict(json.loads(Path(args.alone).read_text()))
        cluster = replace(config.cluster, storage=args.storage)
        return start(replace(config, name=args.name, cluster=cluster), None, [])
    args.storage = args.storage or tempfile.mkdtemp()
    os.environ["RAY_ADDRESS"] = "local"
    join()
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    print(f"{processor()}; load average before: {os.getloadavg()[0]:.1f}", flush=True)
    pairs = [pair for number in range(args.repetitions) for pair in repetition(args, number)]
    print(f"load average after: {os.getloadavg()[0]:.1f}")
    ratio = ratio_of_means([p.as_trial for p in pairs], [p.alone for p in pairs])
    print(f"trial / run alone: {ratio} over {len(pairs)} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
