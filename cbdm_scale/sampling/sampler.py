"""A set of images that does not depend on who generates it.

Every image has its own random numbers, by its number in the set. Which worker makes it, and in
which batch, changes nothing beyond the float rounding of another batch size; the same chunks
give the same bits (on GPUs as far as their kernels do). Shapes: n = images, C = channels,
H = height, W = width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.edm import EDM
from cbdm_scale.diffusion.process import Process
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.ddim import ddim
from cbdm_scale.sampling.ddpm import ancestral
from cbdm_scale.sampling.dpm import dpm_solver
from cbdm_scale.sampling.guidance import GuidanceInterval, Omega, guide
from cbdm_scale.sampling.heun import heun
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig
from cbdm_scale.sampling.steps import Draw
from cbdm_scale.storage.checks import PositiveInt, check_value

CHUNK_SIZE = 100
"""Images that are made at a time on CPUs, where nobody says another number."""


def chunks(num_samples: int, chunk_size: int, rank: int, world: int) -> list[Tensor]:
    """Sample numbers, int64, of every chunk of one rank: chunk c belongs to rank c % world."""
    check_value("chunk_size", chunk_size, PositiveInt, default=CHUNK_SIZE)
    return list(torch.arange(num_samples).split(chunk_size))[rank::world] if num_samples else []


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """What decides an image, beside the weights, its number, its label and the guidance."""

    shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    null_label: int
    """What the network knows as no label: K."""
    process: Process
    """Of the network; on the device that images are made on."""
    config: SamplerConfig
    seed: int
    chunk_size: int = CHUNK_SIZE
    """Images that are made at a time."""
    guidance_mode: GuidanceMode = "cfg"

    def generate(
        self, net: Net, samples: Tensor, y: Tensor, omega: Omega, weak: Net | None = None
    ) -> Tensor:
        """Images number ``samples`` (n,) with labels y (n,): (n, C, H, W) float32 in [-1, 1].

        They are made on the device of ``samples``; omega is the strength of guidance, 0 none,
        or (n,), one an image. ``weak``: the network that autoguidance moves away from.
        ValueError if the network's values are not finite.
        """
        assert samples.shape == y.shape, "one label for every sample"
        config, shape = self.config, self.shape
        interval = GuidanceInterval(self.process, config.guidance_from, config.guidance_to)
        size, images = self.chunk_size, []
        for first in range(0, len(samples), size):
            here = slice(first, first + size)
            strength = omega[here] if isinstance(omega, Tensor) else omega
            about = self.null_label, interval, self.guidance_mode, weak
            guided = guide(net, strength, *about)
            normal = partial(_normal, self.seed, samples[here], shape)
            solver = _solver(config, self.process, partial(normal, "sample step"))
            images.append(_check_finite(solver(guided, normal("sample", 0), y[here])))
        return torch.cat(images) if images else torch.empty(0, *shape, device=samples.device)


def _normal(
    seed: int, samples: Tensor, shape: tuple[int, int, int], purpose: str, stream: int
) -> Tensor:
    """Standard normal numbers of samples (n,): (n, C, H, W) float32."""
    numbers = rng.normal(seed, purpose, samples, math.prod(shape), stream=stream)
    return numbers.view(-1, *shape)


def _check_finite(x: Tensor) -> Tensor:
    bad = int((~x.isfinite()).flatten(1).any(dim=1).sum())  # syncs, once a chunk
    if bad:
        raise ValueError(
            f"the network made non-finite values in {bad} of {len(x)} images: its weights are "
            "damaged or training diverged. Sample from an earlier checkpoint."
        )
    return x


def _solver(
    config: SamplerConfig, process: Process, draw: Draw
) -> Callable[[Net, Tensor, Tensor], Tensor]:
    """The sampler that the options name, (net, noise, y) -> images, with all its options."""
    n, spacing = config.num_steps, config.steps
    if isinstance(process, EDM):
        assert config.name == "heun", f"{config.name} does not sample from edm"
        data = process.config.sigma_data
        return partial(heun, sigma_data=data, config=config.heun, num_steps=n, draw=draw)
    assert isinstance(process, LinearSchedule), "a process without sampler"
    match config.name:
        case "ddpm":
            sampler: Callable[..., Tensor] = partial(
                ancestral, variance=config.variance, draw=draw
            )
        case "ddim":
            sampler = partial(ddim, eta=config.eta, draw=draw)
        case "dpm":
            sampler = dpm_solver
        case "heun":
            raise AssertionError("heun samples from edm")
    return partial(sampler, schedule=process, num_steps=n, spacing=spacing)
