"""Making a set on the workers of a cluster, chunk by chunk: what is missing of it.

Shapes: n = images of a chunk, (C, H, W) an image.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from cbdm_scale.cluster import PoolConfig, run_jobs
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.process import Process
from cbdm_scale.generation.plan import Chunk, SetPlan
from cbdm_scale.generation.store import ChunkStore
from cbdm_scale.models.build import null_label
from cbdm_scale.sampling.generate import generate, to_uint8

LOG_EVERY_S = 5.0


@dataclass(frozen=True)
class ChunkMaker:
    """Loads the network on a worker: what ``cluster.run_jobs`` sets workers up with."""

    plan: SetPlan
    weights: bytes
    """A safetensors file."""

    def __call__(self, device: torch.device) -> Callable[[Chunk], NDArray[np.uint8]]:
        """A function from a chunk to its images (n, C, H, W)."""
        plan = self.plan
        net = plan.network.build()
        net.load_state_dict(load(self.weights))
        net.to(device).eval()
        process = build_process(plan.noise, device)

        def make(chunk: Chunk) -> NDArray[np.uint8]:
            return to_uint8(make_chunk(plan, net, process, chunk, device)).cpu().numpy()

        return make


def make_chunk(
    plan: SetPlan,
    net: torch.nn.Module,
    process: Process,
    chunk: Chunk,
    device: torch.device,
) -> torch.Tensor:
    """The images of a chunk before they are quantised: (n, C, H, W) in [-1, 1]."""
    samples = torch.arange(*chunk)
    bf16 = plan.precision == "bf16"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        return generate(
            net,
            samples.to(device),
            plan.labels_of(samples).to(device),
            config=plan.sample,
            process=process,
            shape=plan.shape,
            omega=plan.omega,
            null_label=null_label(plan.num_classes),
            seed=plan.seed,
            chunk_size=len(samples),
            guidance_mode=plan.guidance_mode,
        )


@dataclass
class Meter:
    """Says now and then how far it is, and how long the rest will take."""

    kept: int
    """Images that were there before."""
    todo: int
    done: int = 0
    began: float = field(default_factory=time.perf_counter)
    said: float = field(default_factory=time.perf_counter)

    def say(self, text: str) -> None:
        """A line of the workers; while none has made anything, they are only starting."""
        print(text, flush=True)
        if not self.done:
            self.began = time.perf_counter()

    def add(self, num_images: int) -> None:
        now = time.perf_counter()
        self.done += num_images
        if now - self.said >= LOG_EVERY_S or self.done == self.todo:
            self.said = now
            left = int((self.todo - self.done) / self.rate(now))
            print(
                f"{self.kept + self.done:>9,}/{self.kept + self.todo:,} images | "
                f"{self.rate(now):.1f}/s | {left // 60}:{left % 60:02d} left",
                flush=True,
            )

    def rate(self, now: float) -> float:
        """Images a second since the last worker was ready that began before the first image."""
        return self.done / max(now - self.began, 1e-9)


def make_missing(
    store: ChunkStore, weights: bytes, num_images: int, cluster: PoolConfig
) -> Meter:
    """Make the chunks that are not there yet; ``weights`` is a safetensors file."""
    todo = store.missing(store.plan.chunks(num_images))
    total = sum(stop - first for first, stop in todo)
    meter = Meter(kept=num_images - total, todo=total)
    if meter.kept:
        print(f"{meter.kept:,} of {num_images:,} images are there already", flush=True)
    maker = ChunkMaker(store.plan, weights)
    for chunk, images in run_jobs(maker, todo, cluster, meter.say):
        store.write(chunk, images)
        meter.add(chunk[1] - chunk[0])
    meter.said = time.perf_counter()
    return meter
