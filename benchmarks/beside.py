"""How long training stands still for an evaluation: by the training workers, and beside them.

    python -m benchmarks.beside --shards FOLDER --storage FOLDER [--workers 1]

Runs the train command on the digits with --eval.background never and auto in turn, half a
logical CPU for each training worker, so that some are free, and reads from MLflow how long
the step loop stood still (``paused_s``) wherever an evaluation came due: for the checkpoint,
and with never for the evaluation.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.timing import ratio_of_means
from cbdm_scale.evaluation.results import metric_name
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.client import make_client

LOG = 240


@dataclass(frozen=True)
class Measured:
    """Seconds of one run."""

    beside: str
    paused: list[float]
    """How long the step loop stood still at each evaluation."""
    whole: float
    """From the first report to the last, pauses included."""
    evaluated: float
    """From the first report to the last evaluation's."""


def command(args: argparse.Namespace, beside: str, name: str) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "cbdm_scale.train",
            "--name",
            name,
            "--eval.background",
            beside,
        ),
        *("--data.root", args.shards, "--cluster.storage", args.storage),
        *("--cluster.workers", str(args.workers), "--cluster.cpus-per-worker", "0.5"),
        *("--train.total-images", str(args.images), "--train.eval-every", str(args.every)),
        *("--train.log-every", str(LOG), "--train.sample-every", "0"),
        *("--eval.num-images", str(args.num_images)),
    ]


def measure(args: argparse.Namespace, beside: str, repetition: int) -> Measured:
    """One run, and when it made its reports."""
    name = f"beside-{args.workers}-{beside}-{repetition}"
    words = command(args, beside, name)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run_id = Storage(args.storage).child(name).read_text("mlflow_run_id").strip()
    client = make_client(f"sqlite:///{Storage(args.storage).local_path('mlflow.db')}")
    history = client.get_metric_history(run_id, "paused_s")
    times = [point.timestamp / 1000 for point in history]
    paused = [point.value for point in history if point.step % args.every == 0]
    last = (
        max(p.timestamp for p in client.get_metric_history(run_id, metric_name("fid", 1.0)))
        / 1000
    )
    return Measured(beside, paused, max(times) - min(times), last - min(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--images", type=int, default=9_600)
    parser.add_argument("--every", type=int, default=2_400)
    parser.add_argument("--num-images", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--raw", default="")
    args = parser.parse_args()
    found: list[Measured] = []
    print(f"load average before: {os.getloadavg()[0]:.1f}", flush=True)
    for repetition in range(args.repetitions):
        for beside in ("never", "auto") if repetition % 2 else ("auto", "never"):
            one = measure(args, beside, repetition)
            found.append(one)
            words = " ".join(f"{seconds:.2f}" for seconds in one.paused)
            print(
                f"{beside:>5}: {one.whole:.1f} s of training, stood still for {words} s",
                flush=True,
            )
            if args.raw:
                Path(args.raw).write_text(json.dumps([asdict(m) for m in found], indent=1))
    print(f"load average after: {os.getloadavg()[0]:.1f}")
    report(found)


def report(found: list[Measured]) -> None:
    """Means over evaluations and runs."""
    by = {b: [m for m in found if m.beside == b] for b in ("never", "auto")}
    for beside, runs in by.items():
        paused, whole = sum(sum(m.paused) for m in runs), sum(m.whole for m in runs)
        print(
            f"{beside:>5}: stood still for {paused / whole:.1%} of {whole:.0f} s, "
            f"{statistics.mean(p for m in runs for p in m.paused):.2f} s an evaluation; "
            f"all evaluated after {statistics.mean(m.evaluated for m in runs):.0f} s"
        )
    never, auto = ([p for m in by[b] for p in m.paused] for b in ("never", "auto"))
    print(f"pause of auto / never: {ratio_of_means(auto, never)}")
    whole = {b: [m.whole for m in by[b]] for b in by}
    print(f"training, auto / never: {ratio_of_means(whole['auto'], whole['never'])}")


if __name__ == "__main__":
    main()
