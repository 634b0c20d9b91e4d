"""How long training stands still for an evaluation: by the training workers, and beside them.

    python -m benchmarks.beside --shards FOLDER --storage FOLDER [--workers 1]

Runs the train command on the digits with --eval.beside never and auto in turn, half a logical
CPU for each training worker, so that some are free, and reads from MLflow when each report was
made. An interval between two reports in which an evaluation came due is set against the usual
one, the median of those of the run with never in which none did.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.timing import ratio_of_means, ratio_of_medians
from cbdm_scale.storage import Storage
from cbdm_scale.tracking.client import make_client

LOG, EVERY = 240, 2_400


@dataclass(frozen=True)
class Measured:
    """Seconds of one run."""

    beside: str
    struck: list[float]
    """Intervals between reports in which an evaluation came due."""
    others: list[float]
    whole: float
    """From the first report to the last."""


def command(args: argparse.Namespace, beside: str, name: str) -> list[str]:
    return [
        *(sys.executable, "-m", "cbdm_scale.train", "--name", name, "--eval.beside", beside),
        *("--data.root", args.shards, "--cluster.storage", args.storage),
        *("--cluster.workers", str(args.workers), "--cluster.cpus-per-worker", "0.5"),
        *("--train.total-images", str(args.images), "--train.eval-every", str(EVERY)),
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
    reports = client.get_metric_history(run_id, "loss/total")
    at = {report.step: report.timestamp / 1000 for report in reports}
    steps = sorted(at)
    gaps = {a: at[b] - at[a] for a, b in zip(steps, steps[1:], strict=False)}
    struck = [gap for step, gap in gaps.items() if step % EVERY == 0]
    others = [gap for step, gap in gaps.items() if step % EVERY]
    return Measured(beside, struck, others, at[steps[-1]] - at[steps[0]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--images", type=int, default=9_600)
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
            print(
                f"{beside:>5}: whole {one.whole:.1f} s, usual interval "
                f"{statistics.median(one.others):.2f} s, with an evaluation due "
                f"{' '.join(f'{gap:.2f}' for gap in one.struck)} s",
                flush=True,
            )
            if args.raw:
                Path(args.raw).write_text(json.dumps([asdict(m) for m in found], indent=1))
    print(f"load average after: {os.getloadavg()[0]:.1f}")
    report(found)


def report(found: list[Measured]) -> None:
    """Ratios with 95 % bootstrap intervals, over evaluations and over runs."""
    by = {b: [m for m in found if m.beside == b] for b in ("never", "auto")}
    usual = statistics.median(gap for m in by["never"] for gap in m.others)
    struck = {b: [gap / usual for m in by[b] for gap in m.struck] for b in by}
    ones = [1.0] * len(struck["never"])
    for beside, ratios in struck.items():
        print(
            f"{beside:>5}: {len(ratios)} evaluations, interval with one due / usual interval "
            f"{ratio_of_medians(ratios, ones)}"
        )
    whole = {b: [m.whole for m in by[b]] for b in by}
    print(f"whole run, auto / never: {ratio_of_means(whole['auto'], whole['never'])}")


if __name__ == "__main__":
    main()
