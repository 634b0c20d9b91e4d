"""Runs on several ranks as plain processes with gloo: no Ray, no MLflow, nothing pretended.

The processes are forked from a server that has imported torch once.
"""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist

from cbdm_scale.config.schema import Config
from cbdm_scale.data.options import DataConfig
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.runs.worker import Run
from cbdm_scale.sampling.options import SamplerConfig
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.tracker import Tracker
from cbdm_scale.training.distributed import DistributedWorld
from cbdm_scale.training.options import TrainConfig

JOIN_S = 240
FORKSERVER = multiprocessing.get_context("forkserver")
"""Of all tests in this process: what a rank uses is loaded once, and not by every rank."""
FORKSERVER.set_forkserver_preload(
    ["torch.distributed", "torch._dynamo", "pandas", "cbdm_scale.runs.worker"]
)


@dataclass(frozen=True)
class Job:
    """One launch of a run: by how many ranks, and up to which image."""

    config: Config
    ranks: int
    kill_at: int = -1
    """Image number at which rank 0 kills itself with -9."""
    begin_with: Path | None = None
    """Checkpoint that the run folder holds before the launch, as after a break there."""


def tiny_config(
    root, storage, name, *, steps, dropout, batch_size=12, save_steps=10_000, micro_batch=0
):
    """A run of ``steps`` steps on the digits, so small that a step takes milliseconds."""
    config = Config(
        dataset="digits_lt",
        name=name,
        data=DataConfig(root=root, flip=False),
        model=UNetConfig(
            channels=16,
            multipliers=(1,),
            num_blocks=1,
            attention=(),
            groups=8,
            dropout=dropout,
        ),
        loss=LossConfig(reg_share=0.75),
        train=TrainConfig(
            total_images=steps * batch_size,
            batch_size=batch_size,
            micro_batch=micro_batch,
            lr=1e-3,
            warmup_images=10 * batch_size,
            ema_halflife=10 * batch_size,
            precision="fp32",
            log_every=batch_size,
            save_every=save_steps * batch_size,
            sample_every=0,
            eval_every=0,
        ),
        sample=SamplerConfig(num_steps=1),
        eval=EvalConfig(extractor="none"),
    )
    return replace(config, cluster=replace(config.cluster, storage=storage, workers=1))


class LossFile(Tracker):
    """Appends the loss of every step to <run>/losses.txt, and dies where it is told to."""

    def __init__(self, run: Storage, kill_at: int):
        self.run, self.kill_at = run, kill_at

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        if "loss/total" in values:
            line = f"{images} {values['loss/total']!r}\n"
            with self.run.open_append("losses.txt") as file:
                file.write(line.encode())
        if images == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def read_losses(job: Job) -> dict[int, float]:
    """Images shown so far -> loss of the step that ended there."""
    run = Storage(job.config.cluster.storage).child(job.config.run_name)
    lines = run.read_text("losses.txt").splitlines()
    return {int(images): float(loss) for images, loss in map(str.split, lines)}


def checkpoint(job: Job, steps: int) -> Path:
    """The checkpoint after so many steps, which may not be there yet."""
    run = Storage(job.config.cluster.storage).child(job.config.run_name)
    images = steps * job.config.train.batch_size
    return run.local_path(f"checkpoints/{images:012d}")


def run_one(job: Job, rank: int, meeting: Path) -> None:
    """What a rank does in one job."""
    store = dist.FileStore(str(meeting), job.ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=job.ranks)
    try:
        run = Storage(job.config.cluster.storage).child(job.config.run_name)
        world = DistributedWorld(torch.device("cpu"))
        if job.begin_with and rank == 0:
            kept = run.local_path("checkpoints") / job.begin_with.name
            shutil.copytree(job.begin_with, kept)
        world.gather(0)  # nobody looks for it before it is there
        tracker = LossFile(run, job.kill_at)
        Run(job.config, world, run, tracker, lambda path, metrics: None, lambda text: None).go()
    finally:
        dist.destroy_process_group()


def run_in_turn(rank: int, jobs: list[Job], folder: Path) -> None:
    """What a process does: its part of each job, one after the other."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    for number, job in enumerate(jobs):
        if rank < job.ranks:
            run_one(job, rank, folder / f"meeting-{number}")


def launch(jobs: list[Job], folder: Path) -> list[int]:
    """Run the jobs in turn on as many processes as the largest needs; their exit codes."""
    folder.mkdir()
    ranks = range(max(job.ranks for job in jobs))
    processes = [FORKSERVER.Process(target=run_in_turn, args=(r, jobs, folder)) for r in ranks]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(JOIN_S)
        assert all(p.exitcode is not None for p in processes), f"a rank hangs after {JOIN_S} s"
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    return [process.exitcode for process in processes]
