"""A set of images that does not depend on who generates it.

Every image has its own random numbers, by its number in the set. Which worker makes it, and in
which batch, changes nothing beyond the float rounding of another batch size; the same chunks
give the same bits. Shapes: n = images, C = channels, H = height, W = width.
"""

import math
from collections.abc import Callable
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
from cbdm_scale.sampling.guidance import Interval, guide
from cbdm_scale.sampling.heun import heun
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig
from cbdm_scale.sampling.steps import Draw


def chunks(num_samples: int, chunk_size: int, rank: int, world: int) -> list[Tensor]:
    """Sample numbers, int64, of every chunk of one rank: chunk c belongs to rank c % world."""
    if chunk_size < 1:
        raise ValueError(f"sample.chunk_size must be at least 1, got {chunk_size}. Try 100.")
    return list(torch.arange(num_samples).split(chunk_size))[rank::world] if num_samples else []


def generate(
    net: Net,
    samples: Tensor,
    y: Tensor,
    *,
    config: SamplerConfig,
    process: Process,
    shape: tuple[int, int, int],
    omega: float,
    null_label: int,
    seed: int,
    chunk_size: int = 100,
    guidance_mode: GuidanceMode = "cfg",
) -> Tensor:
    """Images number ``samples`` (n,) with labels y (n,): (n, C, H, W) float32 in [-1, 1].

    They are made ``chunk_size`` at a time on the device of ``samples``; shape is (C, H, W).
    """
    assert samples.shape == y.shape, "one label for every sample"
    interval = Interval(process, config.guidance_from, config.guidance_to)
    guided = guide(net, omega, null_label, interval, guidance_mode)
    images = []
    for part, y_part in zip(samples.split(chunk_size), y.split(chunk_size), strict=True):
        normal = partial(_normal, seed, part, shape)
        sampler = _sampler(config, process, partial(normal, "sample step"))
        if len(part):
            images.append(_check_finite(sampler(guided, normal("sample", 0), y_part)))
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


def _sampler(
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
