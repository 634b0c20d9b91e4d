"""A set of images that does not depend on who generates it.

Every image has its own random numbers, by its number in the set. Which worker makes it, and in
which batch, changes nothing beyond the float rounding of another batch size; the same chunks
give the same bits. Shapes: n = images, C = channels, H = height, W = width.
"""

import math
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.edm import EDM
from cbdm_scale.diffusion.process import Process, ProcessName
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.ddim import ddim
from cbdm_scale.sampling.ddpm import Variance, ancestral
from cbdm_scale.sampling.dpm import dpm_solver
from cbdm_scale.sampling.guidance import GuidanceMode, Interval, guide
from cbdm_scale.sampling.heun import HeunConfig, heun
from cbdm_scale.sampling.steps import Draw, Spacing, check_num_steps

SamplerName = Literal["ddpm", "ddim", "dpm", "heun"]


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    name: SamplerName = "ddim"
    """Of the process ddpm: ancestral sampling (ddpm), DDIM, or DPM-Solver++(2M) (dpm). Of edm:
    heun, deterministic or with churn."""

    num_steps: int = 100
    """Network calls an image, at most diffusion.num_steps. The paper: 1,000 with ddpm (its
    main tables), 100 with ddim (Table 6). dpm needs some 20. A step of heun is two calls but
    for the last, n steps are 2 n - 1: 18 are usual."""

    eta: float = 0.0
    """Share of ddim's noise in 0..1: 0 is deterministic, 1 is ancestral. ddim only."""

    variance: Variance = "fixed_large"
    """Variance of ddpm's steps: beta_t, or that of the posterior. ddpm only."""

    spacing: Literal["auto", "uniform", "log_snr"] = "auto"
    """Which steps are taken: evenly spaced in t (uniform), or in the logarithm of signal over
    noise, which dpm needs to be second order. auto is log_snr for dpm, uniform otherwise."""

    guidance_from: float = 0.0
    """Guidance acts only where t / T is at least this (0 is the image, 1 is noise). With edm
    t / T is the share of training with less noise."""

    guidance_to: float = 1.0
    """Guidance acts only where t / T is at most this. Outside, a step costs half."""

    heun: HeunConfig = field(default_factory=HeunConfig)
    """Levels and churn of heun."""

    def __post_init__(self) -> None:
        if self.name not in get_args(SamplerName):
            raise ValueError(f"sample.name must be ddpm, ddim, dpm or heun, got {self.name!r}.")
        if self.num_steps < 1:
            raise ValueError(
                f"sample.num_steps must be at least 1, got {self.num_steps}. Try 100."
            )
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sample.eta must be between 0 and 1, got {self.eta}. Try 0.")
        if self.name != "ddim" and self.eta:
            raise ValueError(
                f"sample.eta ({self.eta}) acts with sample.name ddim only, not with "
                f"{self.name}. Leave it at 0 or try --sample.name ddim."
            )
        if self.variance not in ("fixed_large", "fixed_small"):
            raise ValueError(
                f"sample.variance must be fixed_large or fixed_small, got {self.variance!r}."
            )
        if self.spacing not in ("auto", "uniform", "log_snr"):
            raise ValueError(
                f"sample.spacing must be auto, uniform or log_snr, got {self.spacing!r}."
            )
        if not 0 <= self.guidance_from <= self.guidance_to <= 1:
            raise ValueError(
                f"sample.guidance_from ({self.guidance_from}) and sample.guidance_to "
                f"({self.guidance_to}) must satisfy 0 <= from <= to <= 1, in units of t / T. "
                "Try 0 and 1, which is guidance at every step."
            )

    @property
    def steps(self) -> Spacing:
        """The spacing that auto stands for."""
        if self.spacing == "auto":
            return "log_snr" if self.name == "dpm" else "uniform"
        return self.spacing

    @property
    def calls(self) -> int:
        """Network calls an image, guidance apart."""
        return 2 * self.num_steps - 1 if self.name == "heun" else self.num_steps

    def check_fits(self, process: ProcessName, num_levels: int) -> None:
        """ValueError if this is no sampler of the process, or asks for more steps than T."""
        if (self.name == "heun") != (process == "edm"):
            other = usual_sampler(process)
            raise ValueError(
                f"sample.name ({self.name}) is no sampler of the process {process}. Try "
                f"--sample.name {other.name} --sample.num-steps "
                f"{other.num_steps if process == 'edm' else min(other.num_steps, num_levels)}."
            )
        if process == "ddpm":
            check_num_steps(num_levels, self.num_steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that decide the images, without the options of heun for the others."""
        plain = asdict(self)
        if self.name != "heun":
            del plain["heun"]
        return plain

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> "SamplerConfig":
        """The inverse of ``to_dict`` and of ``asdict``."""
        try:
            return cls(**tree | {"heun": HeunConfig(**tree.get("heun", {}))})
        except TypeError as error:
            raise ValueError(f"sample is not as it is written: {error}") from error


def usual_sampler(process: ProcessName) -> SamplerConfig:
    """The sampler of a process where nobody says which."""
    return SamplerConfig(name="heun", num_steps=18) if process == "edm" else SamplerConfig()


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
    images = [
        _generate_chunk(guided, part, y_part, config, process, shape, seed)
        for part, y_part in zip(samples.split(chunk_size), y.split(chunk_size), strict=True)
        if len(part)
    ]
    return torch.cat(images) if images else torch.empty(0, *shape, device=samples.device)


def _generate_chunk(
    net: Net,
    samples: Tensor,
    y: Tensor,
    config: SamplerConfig,
    process: Process,
    shape: tuple[int, int, int],
    seed: int,
) -> Tensor:
    def normal(purpose: str, stream: int) -> Tensor:
        numbers = rng.normal(seed, purpose, samples, math.prod(shape), stream=stream)
        return numbers.view(-1, *shape)  # (n, C, H, W)

    noise, draw = normal("sample", 0), partial(normal, "sample step")
    if isinstance(process, EDM):
        x = _of_edm(net, noise, y, config, process, draw)
    else:
        assert isinstance(process, LinearSchedule), "a process without sampler"
        x = _of_ddpm(net, noise, y, config, process, draw)
    bad = int((~x.isfinite()).flatten(1).any(dim=1).sum())  # syncs, once a chunk
    if bad:
        raise ValueError(
            f"the network made non-finite values in {bad} of {len(x)} images: its weights are "
            "damaged or training diverged. Sample from an earlier checkpoint."
        )
    return x


def _of_ddpm(
    net: Net,
    noise: Tensor,
    y: Tensor,
    config: SamplerConfig,
    schedule: LinearSchedule,
    draw: Draw,
) -> Tensor:
    n, space = config.num_steps, config.steps
    match config.name:
        case "ddpm":
            return ancestral(
                net,
                noise,
                y,
                schedule=schedule,
                num_steps=n,
                variance=config.variance,
                spacing=space,
                draw=draw,
            )
        case "ddim":
            return ddim(
                net,
                noise,
                y,
                schedule=schedule,
                num_steps=n,
                eta=config.eta,
                spacing=space,
                draw=draw,
            )
        case "dpm":
            return dpm_solver(net, noise, y, schedule=schedule, num_steps=n, spacing=space)
        case "heun":
            raise AssertionError("heun samples from edm")


def _of_edm(
    net: Net, noise: Tensor, y: Tensor, config: SamplerConfig, process: EDM, draw: Draw
) -> Tensor:
    assert config.name == "heun", f"{config.name} does not sample from edm"
    return heun(
        net,
        noise,
        y,
        sigma_data=process.config.sigma_data,
        config=config.heun,
        num_steps=config.num_steps,
        draw=draw,
    )


def to_uint8(x: Tensor) -> Tensor:
    """Round images in [-1, 1] to the nearest of 0..255; what lies outside is clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
