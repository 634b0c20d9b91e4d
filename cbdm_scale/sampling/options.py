"""Options of sampling: sampler, steps, guidance."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cbdm_scale.diffusion.options import ProcessName
from cbdm_scale.storage.checks import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    UnitFloat,
    check_fields,
)

GuidanceMode = Literal["cfg", "tcfg"]

SamplerName = Literal["ddpm", "ddim", "dpm", "heun"]

Spacing = Literal["uniform", "log_snr"]

SpacingOption = Literal["auto", "uniform", "log_snr"]

Variance = Literal["fixed_large", "fixed_small"]


@dataclass(frozen=True, kw_only=True)
class HeunConfig:
    sigma_min: PositiveFloat = 0.002
    """Smallest noise of the path, before 0."""

    sigma_max: PositiveFloat = 80.0
    """Noise that the path starts from."""

    rho: PositiveFloat = 7.0
    """Exponent of the levels between: larger puts more of them near sigma_min."""

    churn: NonNegativeFloat = 0.0
    """S_churn, noise added before each step and taken off again by it: 0 is the deterministic
    sampler (Algorithm 1). The paper: 10 to 80 with hundreds of steps (Algorithm 2)."""

    churn_from: NonNegativeFloat = 0.05
    """S_tmin: no churn below this sigma. These three are the paper's for ImageNet at 64 px."""

    churn_to: NonNegativeFloat = 50.0
    """S_tmax: no churn above this sigma."""

    churn_noise: PositiveFloat = 1.003
    """S_noise: standard deviation of the new noise, a little above 1 against lost detail."""

    def __post_init__(self) -> None:
        check_fields(self, "sample.heun.")
        if self.sigma_max <= self.sigma_min:
            raise ValueError(
                f"sample.heun.sigma_max ({self.sigma_max}) must be above sample.heun.sigma_min "
                f"({self.sigma_min}). Try 80."
            )
        if self.churn_from > self.churn_to:
            raise ValueError(
                f"sample.heun.churn_from ({self.churn_from}) and sample.heun.churn_to "
                f"({self.churn_to}) must satisfy from <= to, in units of sigma. Try 0.05 "
                "and 50."
            )


def check_trained(option: str, mode: str, strength: float, omega_max: float) -> None:
    """ValueError if the network did not learn this strength: ``omega_max`` 0 is none at all."""
    if mode == "tcfg" and not omega_max:
        raise ValueError(
            f"{option} (tcfg) needs a network with an omega-conditioned layer. Make one of a "
            "trained network with --init-from RUN --loss.tcfg, or guide with two predictions a "
            "step: cfg."
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

    num_steps: PositiveInt = 100
    """Network calls an image, at most diffusion.num_steps. The paper: 1,000 with ddpm (its
    main tables), 100 with ddim (Table 6). dpm needs some 20. A step of heun is two calls but
    for the last, n steps are 2 n - 1: 18 are usual."""

    eta: UnitFloat = 0.0
    """Share of ddim's noise in 0..1: 0 is deterministic, 1 is ancestral. ddim only."""

    variance: Variance = "fixed_large"
    """Variance of ddpm's steps: beta_t, or that of the posterior. ddpm only."""

    spacing: SpacingOption = "auto"
    """Which steps are taken: evenly spaced in t (uniform), or in the logarithm of signal over
    noise, which dpm needs to be second order. auto is log_snr for dpm, uniform otherwise."""

    guidance_from: UnitFloat = 0.0
    """Guidance acts only where t / T is at least this (0 is the image, 1 is noise). With edm
    t / T is the share of training with less noise."""

    guidance_to: UnitFloat = 1.0
    """Guidance acts only where t / T is at most this. Outside, a step costs half."""

    heun: HeunConfig = field(default_factory=HeunConfig)
    """Levels and churn of heun."""

    def __post_init__(self) -> None:
        check_fields(self, "sample.")
        if self.name != "ddim" and self.eta:
            raise ValueError(
                f"sample.eta ({self.eta}) acts with sample.name ddim only, not with "
                f"{self.name}. Leave it at 0 or try --sample.name ddim."
            )
        if self.guidance_from > self.guidance_to:
            raise ValueError(
                f"sample.guidance_from ({self.guidance_from}) and sample.guidance_to "
                f"({self.guidance_to}) must satisfy from <= to, in units of t / T. "
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
