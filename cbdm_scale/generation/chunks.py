"""Making a set on the workers of a cluster, chunk by chunk: what is missing of it.

Shapes: n = images of a chunk, (C, H, W) an image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.cluster.pool import run_jobs
from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.process import Process
from cbdm_scale.generation.chunk_size import chunk_memory
from cbdm_scale.generation.network import sampling_net
from cbdm_scale.generation.plan import Chunk, SetPlan
from cbdm_scale.generation.store import ChunkStore
from cbdm_scale.models.build import build
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.sampling.sampler import Sampler


@dataclass(frozen=True)
class ChunkMaker:
    """Loads the network on a worker: what ``cluster.run_jobs`` sets workers up with."""

    plan: SetPlan
    weights: bytes
    """A safetensors file."""
    guide_weights: bytes = b""
    """Another, where the plan has a guide."""

    def __call__(self, device: torch.device) -> Callable[[Chunk], NDArray[np.uint8]]:
        """A function from a chunk to its images (n, C, H, W)."""
        plan = self.plan
        net, weak = self._net(plan.network, self.weights, device), None
        if plan.guide:
            weak = self._net(plan.guide.network, self.guide_weights, device)
        process = build_process(plan.noise, device)

        def make(chunk: Chunk) -> NDArray[np.uint8]:
            with chunk_memory("chunk_size", chunk[1] - chunk[0]):
                x = make_chunk(plan, net, process, chunk, device, weak)
                return to_uint8(x).cpu().numpy()

        return make

    def _net(self, spec: NetworkSpec, weights: bytes, device: torch.device) -> Net:
        """A network with its weights, as samplers call it."""
        trained = build(spec)
        trained.load_state_dict(load(weights))
        return sampling_net(trained.to(device).eval(), device, self.plan.precision)


def make_chunk(
    plan: SetPlan,
    net: Net,
    process: Process,
    chunk: Chunk,
    device: torch.device,
    weak: Net | None = None,
) -> torch.Tensor:
    """The images of a chunk before they are quantised: (n, C, H, W) in [-1, 1].

    ``net``, and ``weak`` where the plan has a guide, have the plan's precision
    (network.sampling_net).
    """
    samples = torch.arange(*chunk)
    sampler = Sampler(
        shape=plan.shape,
        null_label=plan.network.null_label,
        process=process,
        config=plan.sample,
        seed=plan.seed,
        chunk_size=len(samples),
        guidance_mode=plan.guidance_mode,
    )
    y = plan.labels_of(samples)
    omega = plan.omegas_of(y)
    if isinstance(omega, torch.Tensor):
        omega = omega.to(device)
    return sampler.generate(net, samples.to(device), y.to(device), omega, weak)


def make_missing_chunks(
    store: ChunkStore,
    weights: bytes,
    guide_weights: bytes,
    num_images: int,
    cluster: PoolConfig,
) -> ProgressBar:
    """Make the chunks that are not there yet; weights are safetensors files, b"" of no guide.

    What comes back says how many images were made now, and how many a second.
    """
    todo = store.missing(store.plan.chunks(num_images))
    total = sum(stop - first for first, stop in todo)
    kept = num_images - total
    if kept:
        print(f"{kept:,} of {num_images:,} images are there already", flush=True)
    maker = ChunkMaker(store.plan, weights, guide_weights)
    with ProgressBar(num_images, "images", start=kept) as progress:
        for chunk, images in run_jobs(maker, todo, cluster, progress.log):
            store.write(chunk, images)
            progress.add(chunk[1] - chunk[0])
    return progress
