"""CPU time per training step: Ray Train against torchrun, two workers each.

    python -m benchmarks.ray_overhead [--repetitions 30] [--steps 100] [--raw FILE]

Both launch `cbdm_scale.runs.worker.run_rank` on the digits, one thread a worker, gloo on
loopback. Both groups live all the time and take turns: one trains a stretch of ``--steps``
steps, up to a checkpoint that it reports, and waits there while the other trains. What is
counted is the CPU time of the worker processes (all their threads, Ray's too); Ray's other
processes are not.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.timing import Bench, Cost, arguments, mean, table
from cbdm_scale.cluster.connect import connect
from cbdm_scale.cluster.launch import launch
from cbdm_scale.cluster.options import Log, ReportCheckpoint
from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.presets import preset
from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.training.distributed import DistributedWorld, World, run_in_world

WORKERS, PATIENCE_S = 2, 600.0
RAY, TORCHRUN = "Ray Train", "torchrun"


def cpu_seconds() -> float:
    """User and system time of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass
class Turns:
    """Called at every checkpoint: notes what the stretch cost, waits for the next turn."""

    folder: Path
    launcher: str
    rank: int
    report: ReportCheckpoint
    done: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    def __call__(self, path: str, metrics: dict[str, float]) -> None:
        now = {"wall": time.perf_counter() - self.wall, "cpu": cpu_seconds() - self.cpu}
        file = self.folder / f"{self.launcher} {self.done} {self.rank}.json"
        partial_file = file.with_suffix(".partial")
        partial_file.write_text(json.dumps(now))
        partial_file.rename(file)
        self.done += 1
        await_file(self.folder / f"{self.launcher} {self.done} go")
        self.wall, self.cpu = time.perf_counter(), cpu_seconds()
        self.report(path, metrics)  # what Ray does with it counts


def await_file(file: Path, alive: threading.Event | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not file.exists():
        if time.monotonic() > deadline or (alive and not alive.is_set()):
            raise RuntimeError(f"{file.name} never came")
        time.sleep(0.02)


def rank_main(
    world: World,
    report: ReportCheckpoint,
    log: Log,
    *,
    config: Config,
    folder: str,
    launcher: str,
) -> dict[str, Any]:
    """The product's loop, with a report that takes turns."""
    from cbdm_scale.runs.worker import run_rank

    turns = Turns(Path(folder), launcher, world.rank, report)
    return run_rank(world, turns, log, config=config, tracking_uri="", run_id="")


def under_torchrun(folder: Path) -> None:
    """One process of torchrun."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    config = from_dict(json.loads((folder / "torchrun.json").read_text()))
    world = DistributedWorld(torch.device("cpu"), config.cluster.timeout_s)
    names = {"config": config, "folder": str(folder), "launcher": TORCHRUN}
    outcome = rank_main(world, lambda path, metrics: None, lambda text: None, **names)
    dist.destroy_process_group()
    if "error" in outcome:
        raise SystemExit(outcome["error"])


def make_config(args: argparse.Namespace, folder: Path, name: str) -> Config:
    """The digits' preset, with a checkpoint after every stretch and nothing else in between."""
    base = preset("digits_lt")
    stretch = args.steps * base.train.batch_size
    options = {
        "name": name.lower().replace(" ", "-"),
        "data.root": str(folder / "shards"),
        "train.total_images": stretch * (args.repetitions + 1),
        "train.log_every": stretch,
        "train.save_every": stretch,
        "train.sample_every": 0,
        "train.eval_every": 0,
        "train.keep_checkpoints": 1,
        "sample.num_steps": 1,
        "eval.extractor": "none",
        "cluster.workers": WORKERS,
        "cluster.storage": str(folder / "runs"),
        "cluster.max_failures": 0,
        "cluster.timeout_s": PATIENCE_S,
        "cluster.device": "cpu",
    }
    return with_options(base, options)


@dataclass
class Group:
    """The workers of one launcher, as the benchmark sees them: called, they train a stretch."""

    folder: Path
    launcher: str
    steps: int
    alive: threading.Event
    done: int = 0

    def figures(self) -> list[dict[str, float]]:
        """What each worker wrote after its newest stretch, once all have."""
        files = [self.folder / f"{self.launcher} {self.done} {r}.json" for r in range(WORKERS)]
        for file in files:
            await_file(file, self.alive)
        return [json.loads(file.read_text()) for file in files]

    def __call__(self) -> Cost:
        """Of a step: wall time of the slower worker, CPU time as the mean of the workers."""
        self.done += 1
        self.go()
        found = self.figures()
        cpu = mean([one["cpu"] for one in found])
        return Cost(max(one["wall"] for one in found) / self.steps, cpu / self.steps)

    def go(self) -> None:
        (self.folder / f"{self.launcher} {self.done} go").touch()


def take_turns(bench: Bench, groups: dict[str, Group]) -> None:
    """The first stretch of each is a warm-up; the checkpoint at the end waits as well."""
    for group in groups.values():
        group.figures()
    bench.finish(table(bench.compare(groups), over=[TORCHRUN], unit="ms"))
    for group in groups.values():
        group.done += 1
        group.go()


def run_both(args: argparse.Namespace, folder: Path, bench: Bench) -> None:
    from cbdm_scale.storage.folder import Storage
    from data_prep.prepare import prepare_digits

    prepare_digits(str(folder / "shards"))
    ray_config = make_config(args, folder, RAY)
    text = json.dumps(asdict(make_config(args, folder, TORCHRUN)))
    (folder / "torchrun.json").write_text(text)
    for config in (ray_config, make_config(args, folder, TORCHRUN)):
        Storage(config.cluster.storage).child(config.run_name).make_folder()

    os.environ.setdefault("RAY_ADDRESS", "local")  # not a cluster that others use
    connect(ray_config.cluster)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(WORKERS)]
    command += ["-m", "benchmarks.ray_overhead", "--rank-in", str(folder)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    torchrun = subprocess.Popen(command, env=env)
    alive = threading.Event()
    alive.set()
    groups = {n: Group(folder, n, args.steps, alive) for n in (TORCHRUN, RAY)}
    referee = threading.Thread(target=take_turns, args=(bench, groups), daemon=True)
    referee.start()
    try:
        main_of_ranks = partial(rank_main, config=ray_config, folder=str(folder), launcher=RAY)
        run = Storage(ray_config.cluster.storage).child(ray_config.run_name)
        on_worker = partial(run_in_world, main_of_ranks, ray_config.cluster.timeout_s)
        outcome = launch(on_worker, ray_config.cluster, run)
        if "error" in outcome or torchrun.wait(PATIENCE_S):
            raise SystemExit(outcome.get("error", "the loop under torchrun failed"))
    finally:
        alive.clear()
        torchrun.terminate()
        torchrun.wait()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=100, help="steps a stretch")
    parser.add_argument("--rank-in", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank_in:
        under_torchrun(Path(args.rank_in))
        return
    about = {"workers": WORKERS, "threads a worker": 1, "steps a repetition": args.steps}
    with tempfile.TemporaryDirectory(prefix="ray-overhead-") as name:
        run_both(args, Path(name), Bench(args, **about))


if __name__ == "__main__":
    main()
