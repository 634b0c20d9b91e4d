"""Options of the noise: which process, DDPM's schedule, EDM's levels."""

import math
from dataclasses import dataclass
from typing import Literal

ProcessName = Literal["ddpm", "edm"]

MOST_STEPS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class EDMConfig:
    sigma_data: float = 0.5
    """Standard deviation of the images in [-1, 1]."""

    p_mean: float = -1.2
    """Mean of ln(sigma) in training."""

    p_std: float = 1.2
    """Standard deviation of ln(sigma) in training."""

    def __post_init__(self) -> None:
        for name, way_out in (
            ("sigma_data", "0.5 for images in [-1, 1]"),
            ("p_std", "the paper has 1.2"),
        ):
            value = getattr(self, name)
            if not (0 < value < math.inf):
                raise ValueError(f"edm.{name} must be above 0, got {value}: {way_out}.")
        if not math.isfinite(self.p_mean):
            raise ValueError(f"edm.p_mean must be finite, got {self.p_mean}. Try -1.2.")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    num_steps: int = 1000
    """T, the number of noise levels."""

    beta_1: float = 1e-4
    """Variance added at the first step."""

    beta_T: float = 0.02
    """Variance added at the last step; beta is linear in between."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_steps <= MOST_STEPS:
            raise ValueError(
                f"diffusion.num_steps must be from 1 to {MOST_STEPS:,}, got {self.num_steps}. "
                "Try 1000."
            )
        if not 0 < self.beta_1 <= self.beta_T < 1:
            raise ValueError(
                f"diffusion.beta_1 ({self.beta_1}) and diffusion.beta_T ({self.beta_T}) must "
                "satisfy 0 < beta_1 <= beta_T < 1. Try 1e-4 and 0.02."
            )


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """The noise of a run: its process and the options of both."""

    process: ProcessName = "ddpm"
    """Whose options act: ``schedule``'s (ddpm) or ``edm``'s."""
    schedule: ScheduleConfig = ScheduleConfig()
    edm: EDMConfig = EDMConfig()
