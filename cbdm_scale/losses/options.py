"""Options of the objective."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cbdm_scale.storage.checks import NonNegativeFloat, Range, UnitFloat, check_fields

LossName = Literal["ddpm", "cbdm"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    name: LossName = "cbdm"
    """The objective: ddpm (Equation 1) or cbdm (Equation 4), with the noise of --process."""

    tau: NonNegativeFloat = 1.0
    """Weight of the regulariser: w(t) = tau * t / T (Equation 4's tau is this / T)."""

    gamma: NonNegativeFloat = 0.25
    """Weight of the commitment term, as in Equation 4."""

    label_power: UnitFloat = 1.0
    """y' is drawn with probability counts ** power: 1 = Y^train, 0.5 = Y^sqr, 0 = Y^bal."""

    p_uncond: UnitFloat = 0.1
    """Probability, per image, that the label is dropped for classifier-free guidance."""

    reg_share: Annotated[float, Range(gt=0, le=1, hint="For none use --loss.name ddpm.")] = 1.0
    """Share of each batch that the regulariser sees, weighted by its inverse (paper: 1)."""

    tcfg: bool = False
    """Teach the network the guidance strength (Equations 32 and 33), so that guided sampling
    costs one prediction (eval.guidance_mode tcfg): with either objective, the terms add."""

    omega_max: NonNegativeFloat = 1.0
    """With tcfg: strengths are uniform in [0, omega_max], one an image (paper: up to 1)."""

    tcfg_gamma: NonNegativeFloat = 0.25
    """With tcfg: weight of the commitment term, the 1/4 of Equation 33."""

    def __post_init__(self) -> None:
        check_fields(self, "loss.")
        if self.tcfg and not (self.omega_max and self.p_uncond):
            option, usual = ("p_uncond", 0.1) if self.omega_max else ("omega_max", 1.0)
            raise ValueError(
                f"loss.{option} ({getattr(self, option)}) leaves loss.tcfg nothing to learn: "
                "it needs strengths above 0 and a prediction without label. Try "
                f"--loss.{option.replace('_', '-')} {usual}."
            )

    @property
    def title(self) -> str:
        """The objective in a word, as runs are called."""
        return f"{self.name}_tcfg" if self.tcfg else self.name

    @property
    def max_guidance(self) -> float:
        """The largest guidance strength that the network is trained with; 0 is none."""
        return self.omega_max if self.tcfg else 0.0

    @property
    def regularises(self) -> bool:
        """Whether a second label's prediction is made at all."""
        return self.name == "cbdm" and self.tau > 0
