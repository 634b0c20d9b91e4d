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
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.timing import (
    Samples,
    median,
    processor,
    ratio_of_means,
    ratio_of_medians,
    write_raw,
)
from cbdm_scale.cluster import ClusterConfig, Log, ReportCheckpoint
from cbdm_scale.config.presets import preset
from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.sampling.options import SamplerConfig
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
    published: ReportCheckpoint
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
        self.published(path, metrics)  # what Ray does with it counts


def await_file(file: Path, alive: threading.Event | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not file.exists():
        if time.monotonic() > deadline or (alive and not alive.is_set()):
            raise RuntimeError(f"{file.name} never came")
        time.sleep(0.02)


def rank_main(
    world: World,
    published: ReportCheckpoint,
    say: Log,
    *,
    config: Config,
    folder: str,
    launcher: str,
) -> dict[str, Any]:
    """The product's loop, with a turn-taking ``published``."""
    from cbdm_scale.runs.worker import run_rank

    turns = Turns(Path(folder), launcher, world.rank, published)
    return run_rank(world, turns, say, config=config, tracking_uri="", run_id="")


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
    return replace(
        base,
        name=name.lower().replace(" ", "-"),
        data=replace(base.data, root=str(folder / "shards")),
        train=replace(
            base.train,
            total_images=stretch * (args.repetitions + 1),
            log_every=stretch,
            save_every=stretch,
            sample_every=0,
            eval_every=0,
            keep=1,
        ),
        sample=SamplerConfig(num_steps=1),
        eval=EvalConfig(extractor="none"),
        cluster=ClusterConfig(
            workers=WORKERS,
            storage=str(folder / "runs"),
            max_failures=0,
            timeout_s=PATIENCE_S,
            device="cpu",
        ),
    )


def take_turns(args: argparse.Namespace, folder: Path, alive: threading.Event) -> None:
    """Give each launcher its stretches in shuffled order; the first stretch is a warm-up."""
    order = random.Random(0)
    for launcher in (RAY, TORCHRUN):
        for rank in range(WORKERS):
            await_file(folder / f"{launcher} 0 {rank}.json", alive)
    for repetition in range(1, args.repetitions + 1):
        for launcher in order.sample([RAY, TORCHRUN], 2):
            (folder / f"{launcher} {repetition} go").touch()
            for rank in range(WORKERS):
                await_file(folder / f"{launcher} {repetition} {rank}.json", alive)
        print(f"{repetition}/{args.repetitions}", flush=True)
    for launcher in (RAY, TORCHRUN):  # the checkpoint at the end waits as well
        (folder / f"{launcher} {args.repetitions + 1} go").touch()


def run_both(args: argparse.Namespace, folder: Path) -> None:
    from cbdm_scale import cluster
    from cbdm_scale.storage.folder import Storage
    from data_prep.prepare import prepare_digits

    prepare_digits(str(folder / "shards"))
    ray_config = make_config(args, folder, RAY)
    text = json.dumps(asdict(make_config(args, folder, TORCHRUN)))
    (folder / "torchrun.json").write_text(text)
    for config in (ray_config, make_config(args, folder, TORCHRUN)):
        Storage(config.cluster.storage).child(config.run_name).make_folder()

    os.environ.setdefault("RAY_ADDRESS", "local")  # not a cluster that others use
    cluster.connect(ray_config.cluster)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(WORKERS)]
    command += ["-m", "benchmarks.ray_overhead", "--rank-in", str(folder)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    torchrun = subprocess.Popen(command, env=env)
    alive = threading.Event()
    alive.set()
    referee = threading.Thread(target=take_turns, args=(args, folder, alive), daemon=True)
    referee.start()
    try:
        main_of_ranks = partial(rank_main, config=ray_config, folder=str(folder), launcher=RAY)
        run = Storage(ray_config.cluster.storage).child(ray_config.run_name)
        on_worker = partial(run_in_world, main_of_ranks, ray_config.cluster.timeout_s)
        outcome = cluster.launch(on_worker, ray_config.cluster, run)
        if "error" in outcome or torchrun.wait(PATIENCE_S):
            raise SystemExit(outcome.get("error", "the loop under torchrun failed"))
    finally:
        alive.clear()
        torchrun.terminate()
        torchrun.wait()


def read_samples(args: argparse.Namespace, folder: Path, launcher: str) -> Samples:
    """Per step: wall time of the slower worker, CPU time as the mean of the workers."""
    samples = Samples()
    for repetition in range(1, args.repetitions + 1):
        files = [folder / f"{launcher} {repetition} {rank}.json" for rank in range(WORKERS)]
        figures = [json.loads(file.read_text()) for file in files]
        samples.wall.append(max(f["wall"] for f in figures) / args.steps)
        samples.cpu.append(sum(f["cpu"] for f in figures) / WORKERS / args.steps)
    return samples


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--steps", type=int, default=100, help="steps a stretch")
    parser.add_argument("--raw", default="", help="JSON file for every single figure")
    parser.add_argument("--rank-in", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank_in:
        under_torchrun(Path(args.rank_in))
        return

    about: dict[str, object] = {
        "processor": processor(),
        "workers": WORKERS,
        "threads a worker": 1,
        "torch": torch.__version__,
        "repetitions": args.repetitions,
        "steps a repetition": args.steps,
        "load average before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory(prefix="ray-overhead-") as name:
        run_both(args, Path(name))
        samples = {x: read_samples(args, Path(name), x) for x in (TORCHRUN, RAY)}
    about["load average after"] = os.getloadavg()[0]
    if args.raw:
        write_raw(args.raw, about, samples)
    for key, value in about.items():
        print(f"{key}: {value}")
    print("\n| per step | wall ms (median) | worker CPU ms (mean) |\n|---|---|---|")
    for launcher, s in samples.items():
        wall, cpu = median(torch.tensor(s.wall)).item(), sum(s.cpu) / len(s.cpu)
        print(f"| {launcher} | {wall * 1e3:.2f} | {cpu * 1e3:.3f} |")
    ray, plain = samples[RAY], samples[TORCHRUN]
    cpu_ratio, wall_ratio = (
        ratio_of_means(ray.cpu, plain.cpu),
        ratio_of_medians(ray.wall, plain.wall),
    )
    print(f"| Ray Train / torchrun | {wall_ratio} | {cpu_ratio} |")


if __name__ == "__main__":
    main()
