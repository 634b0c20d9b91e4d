"""Options of sampling: sampler, steps, guidance."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from cbdm_scale.diffusion.options import ProcessName

GuidanceMode = Literal["cfg", "tcfg"]

SamplerName = Literal["ddpm", "ddim", "dpm", "heun"]

Spacing = Literal["uniform", "log_snr"]

SpacingOption = Literal["auto", "uniform", "log_snr"]

Variance = Literal["fixed_large", "fixed_small"]


@dataclass(frozen=True, kw_only=True)
class HeunConfig:
    sigma_min: float = 0.002
    """Smallest noise of the path, before 0."""

    sigma_max: float = 80.0
    """Noise that the path starts from."""

    rho: float = 7.0
    """Exponent of the levels between: larger puts more of them near sigma_min."""

    churn: float = 0.0
    """S_churn, noise added before each step and taken off again by it: 0 is the deterministic
    sampler (Algorithm 1). The paper: 10 to 80 with hundreds of steps (Algorithm 2)."""

    churn_from: float = 0.05
    """S_tmin: no churn below this sigma. These three are the paper's for ImageNet at 64 px."""

    churn_to: float = 50.0
    """S_tmax: no churn above this sigma."""

    churn_noise: float = 1.003
    """S_noise: standard deviation of the new noise, a little above 1 against lost detail."""

    def __post_init__(self) -> None:
        for name, way_out in (
            ("sigma_min", "the paper has 0.002"),
            ("rho", "the paper has 7"),
            ("churn_noise", "the paper has 1.003 to 1.007"),
        ):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"sample.heun.{name} must be above 0, got {value}: {way_out}.")
        if not self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"sample.heun.sigma_max ({self.sigma_max}) must be above sample.heun.sigma_min "
                f"({self.sigma_min}). Try 80."
            )
        if not 0 <= self.churn < math.inf:
            raise ValueError(
                f"sample.heun.churn must be 0 or more, got {self.churn}. Try 0, which is none."
            )
        if not 0 <= self.churn_from <= self.churn_to < math.inf:
            raise ValueError(
                f"sample.heun.churn_from ({self.churn_from}) and sample.heun.churn_to "
                f"({self.churn_to}) must satisfy 0 <= from <= to, in units of sigma. Try 0.05 "
                "and 50."
            )


def check_mode(option: str, mode: str) -> None:
    """ValueError unless ``mode`` is a guidance mode; ``option`` is what the user set."""
    if mode not in get_args(GuidanceMode):
        raise ValueError(
            f"{option} must be cfg (two predictions a step) or tcfg (one, by a network trained "
            f"with --loss.tcfg), got {mode!r}."
        )


def check_guidance(option: str, strengths: Sequence[float]) -> None:
    """ValueError unless these are one or more guidance strengths omega."""
    if not strengths or not all(0 <= omega < math.inf for omega in strengths):
        got = " ".join(f"{omega:g}" for omega in strengths) or "none"
        raise ValueError(
            f"{option} must be one or more numbers of at least 0, got {got}: 0 is no guidance, "
            "the paper uses 0.8 to 1.6."
        )


def check_trained(option: str, mode: str, strength: float, omega_max: float) -> None:
    """ValueError if the network did not learn this strength: ``omega_max`` 0 is none at all."""
    if mode == "tcfg" and not omega_max:
        raise ValueError(
            f"{option} (tcfg) needs a network with an omega-conditioned layer. Train one with "
            "--loss.tcfg, or guide this one with two predictions a step: cfg."
        )
    if mode == "tcfg" and strength > omega_max:
        raise ValueError(
            f"{option} (tcfg) knows strengths up to {omega_max:g} (loss.omega_max), got "
            f"{strength:g}. Try {omega_max:g}, or cfg, which takes any strength."
        )


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

    spacing: SpacingOption = "auto"
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
        choices = {"name": SamplerName, "variance": Variance, "spacing": SpacingOption}
        for option, kind in choices.items():
            *others, last = get_args(kind)
            if getattr(self, option) not in (*others, last):
                raise ValueError(
                    f"sample.{option} must be {', '.join(others)} or {last}, got "
                    f"{getattr(self, option)!r}."
                )
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
    """The default sampler of a process."""
    return SamplerConfig(name="heun", num_steps=18) if process == "edm" else SamplerConfig()


def check_num_steps(num_levels: int, num_steps: int) -> None:
    """ValueError unless so many different steps can be taken out of the levels."""
    if not 1 <= num_steps <= num_levels:
        raise ValueError(
            f"sample.num_steps ({num_steps}) must be between 1 and diffusion.num_steps "
            f"({num_levels}). Try --sample.num-steps {min(max(num_steps, 1), num_levels)}."
        )
