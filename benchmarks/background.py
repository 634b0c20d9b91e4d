"""How long training stands still for an evaluation: by the training workers, and beside them.

    python -m benchmarks.background --shards FOLDER --storage FOLDER [--workers 1]

Runs the train command on the digits with --eval.background never and auto in turn, half a
logical CPU for each training worker, so that some are free, and reads from MLflow how long
the step loop stood still (``paused_s``) wherever an evaluation came due: for the checkpoint,
and with never for the evaluation.
"""

import argparse
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean

from benchmarks.commands import run_quietly, train_command
from benchmarks.timing import Bench, Cost, arguments, markdown, ratio_of_means, table
from cbdm_scale.evaluation.results import metric_name
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.client import make_client

MODES = "never", "auto"
EVERY = 2_400
"""Images between two evaluations."""


@dataclass(frozen=True)
class Measured:
    """Seconds of one run."""

    paused: list[float]
    """How long the step loop stood still at each evaluation."""
    whole: float
    """From the first report to the last, pauses included."""
    evaluated: float
    """From the first report to the last evaluation's."""


def measure(args: argparse.Namespace, mode: str, repetition: int) -> Measured:
    """One run, and when it made its reports."""
    name = f"background-{args.workers}-{mode}-{repetition}"
    options = f"""
        --dataset digits_lt --cluster.workers {args.workers} --cluster.cpus-per-worker 0.5
        --train.total-images 9600 --train.eval-every {EVERY}
        --train.log-every 240 --train.sample-every 0
        --eval.background {mode} --eval.num-images 500
    """
    run_quietly(train_command(options, shards=args.shards, storage=args.storage, name=name))
    run_id = Storage(args.storage).child(name).read_text(RunDir.MLFLOW_RUN_ID).strip()
    client = make_client(f"sqlite:///{Storage(args.storage).local_path('mlflow.db')}")
    history = client.get_metric_history(run_id, "paused_s")
    times = [point.timestamp / 1000 for point in history]
    paused = [point.value for point in history if point.step % EVERY == 0]
    evaluated = client.get_metric_history(run_id, metric_name("fid", 1.0))
    last = max(point.timestamp for point in evaluated) / 1000
    return Measured(paused, max(times) - min(times), last - min(times))


def pauses_table(found: dict[str, list[Measured]]) -> str:
    """Means over evaluations and runs."""
    rows = []
    paused = {mode: [p for one in runs for p in one.paused] for mode, runs in found.items()}
    for mode, runs in found.items():
        whole = sum(one.whole for one in runs)
        evaluated = fmean(one.evaluated for one in runs)
        share = f"{sum(paused[mode]) / whole:.1%} of {whole:.0f} s"
        rows.append([mode, f"{fmean(paused[mode]):.2f}", share, f"{evaluated:.0f}"])
    ratio = ratio_of_means(paused["auto"], paused["never"])
    head = "", "pause s an evaluation", "stood still", "all evaluated after s"
    return f"{markdown(head, rows)}\n\npause of auto / never: {ratio}"


def main() -> None:
    args = arguments(__doc__, repetitions=3, shards=str, storage=str, workers=1)
    bench = Bench(args, workers=args.workers)
    found: dict[str, list[Measured]] = defaultdict(list)

    def turn(mode: str) -> Cost:
        one = measure(args, mode, len(found[mode]))
        found[mode].append(one)
        bench.keep({f"runs, {mode}": [asdict(one) for one in found[mode]]})
        return Cost(one.whole)

    samples = bench.compare({mode: partial(turn, mode) for mode in MODES})
    bench.finish(pauses_table(found), table(samples, over=["never"]))


if __name__ == "__main__":
    main()
