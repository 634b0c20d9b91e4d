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
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.commands import train_config
from benchmarks.timing import Bench, Cost, arguments, python_words, table
from cbdm_scale.cluster.connect import connect
from cbdm_scale.cluster.launch import launch
from cbdm_scale.cluster.options import Log, ReportCheckpoint
from cbdm_scale.config.schema import Config
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.distributed import DistributedWorld, World, run_in_world

WORKERS, PATIENCE_S = 2, 600.0
RAY, TORCHRUN = "Ray Train", "torchrun"


def await_file(file: Path) -> str:
    """What it holds, once it is there."""
    deadline = time.monotonic() + PATIENCE_S
    while not file.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{file.name} never came")
        time.sleep(0.02)
    return file.read_text()


@dataclass
class Turns:
    """Called at every checkpoint: notes what the stretch cost, waits for the next turn."""

    folder: str
    launcher: str
    rank: int = 0
    report: ReportCheckpoint = lambda path, metrics: None
    done: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    def __call__(self, path: str, metrics: dict[str, float]) -> None:
        now = Cost(time.perf_counter() - self.wall, time.process_time() - self.cpu)
        name = f"{self.launcher} {self.done} {self.rank}.json"
        Storage(self.folder).write_bytes(name, json.dumps(asdict(now)).encode())
        self.done += 1
        await_file(Path(self.folder, f"{self.launcher} {self.done} go"))
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        self.report(path, metrics)  # what Ray does with it counts


def rank_main(
    world: World, report: ReportCheckpoint, log: Log, *, config: Config, turns: Turns
) -> dict[str, Any]:
    """The product's loop, with a report that takes turns."""
    from cbdm_scale.runs.worker import run_rank

    turns = replace(turns, rank=world.rank, report=report)
    return run_rank(world, turns, log, config=config, tracking_uri="", run_id="")


def under_torchrun(given: Mapping[str, Any], folder: str) -> None:
    """One process of torchrun."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    turns = Turns(folder, TORCHRUN)
    config = make_config(argparse.Namespace(**given), folder, TORCHRUN)
    world = DistributedWorld(torch.device("cpu"), config.cluster.timeout_s)
    outcome = rank_main(world, turns.report, lambda text: None, config=config, turns=turns)
    dist.destroy_process_group()
    if "error" in outcome:
        raise SystemExit(outcome["error"])


def make_config(args: argparse.Namespace, folder: str, launcher: str) -> Config:
    """The digits' preset, with a checkpoint after every stretch and nothing else in between."""
    stretch = args.steps * 48
    options = f"""
        --dataset digits_lt --train.batch-size 48 --sample.num-steps 1 --eval.extractor none
        --train.total-images {stretch * (args.repetitions + 1)} --train.log-every {stretch}
        --train.save-every {stretch} --train.keep-checkpoints 1 --train.sample-every 0
        --train.eval-every 0 --cluster.workers {WORKERS} --cluster.max-failures 0
        --cluster.timeout-s {PATIENCE_S} --cluster.device cpu
    """
    where = {"shards": f"{folder}/shards", "storage": f"{folder}/runs"}
    return train_config(options, name=launcher.lower().replace(" ", "-"), **where)


@dataclass
class Group:
    """The workers of one launcher, as the benchmark sees them: called, they train a stretch."""

    folder: Path
    launcher: str
    steps: int
    done: int = 0

    def costs(self) -> list[Cost]:
        """What each worker wrote after its newest stretch, once all have."""
        files = [self.folder / f"{self.launcher} {self.done} {r}.json" for r in range(WORKERS)]
        return [Cost(**json.loads(await_file(file))) for file in files]

    def go(self) -> None:
        self.done += 1
        (self.folder / f"{self.launcher} {self.done} go").touch()

    def __call__(self) -> Cost:
        """Of a step: wall time of the slower worker, CPU time as the mean of the workers."""
        self.go()
        found = self.costs()
        cpu = fmean(one.cpu for one in found)
        return Cost(max(one.wall for one in found) / self.steps, cpu / self.steps)


def take_turns(bench: Bench, groups: dict[str, Group]) -> None:
    """The first stretch of each is a warm-up; the checkpoint at the end waits as well."""
    for group in groups.values():
        group.costs()
    bench.finish(table(bench.compare(groups), over=[TORCHRUN], unit="ms"))
    for group in groups.values():
        group.go()


def run_both(args: argparse.Namespace, folder: str, bench: Bench) -> None:
    from data_prep.prepare import prepare_digits

    prepare_digits(f"{folder}/shards")
    config = make_config(args, folder, RAY)
    runs = Storage(config.cluster.storage)
    for one in (config, make_config(args, folder, TORCHRUN)):
        runs.child(one.run_name).make_folder()

    os.environ.setdefault("RAY_ADDRESS", "local")  # not a cluster that others use
    connect(config.cluster)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(WORKERS)]
    command += python_words(under_torchrun, vars(args), folder)[1:]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    torchrun = subprocess.Popen(command, env=env)
    groups = {name: Group(Path(folder), name, args.steps) for name in (TORCHRUN, RAY)}
    threading.Thread(target=take_turns, args=(bench, groups), daemon=True).start()
    try:
        main_of_ranks = partial(rank_main, config=config, turns=Turns(folder, RAY))
        on_worker = partial(run_in_world, main_of_ranks, config.cluster.timeout_s)
        outcome = launch(on_worker, config.cluster, runs.child(config.run_name))
        if "error" in outcome or torchrun.wait(PATIENCE_S):
            raise SystemExit(outcome.get("error", "the loop under torchrun failed"))
    finally:
        torchrun.terminate()
        torchrun.wait()


def main() -> None:
    args = arguments(__doc__, steps=100)
    about = {"workers": WORKERS, "threads a worker": 1, "steps a repetition": args.steps}
    with tempfile.TemporaryDirectory(prefix="ray-overhead-") as folder:
        run_both(args, folder, Bench(args, **about))


if __name__ == "__main__":
    main()
