"""Options of the objective."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cbdm_scale.storage.checks import (
    NonNegativeFloat,
    PositiveFloat,
    Range,
    UnitFloat,
    check_fields,
)

LossName = Literal["ddpm", "cbdm"]
TcfgTarget = Literal["auto", "noise", "teacher"]
TERM_OPTIONS = (
    *("tcfg", "delta_fm", "t2h", "two_mask"),
    *("ccua_align", "ccua_contrast", "coral", "dispersive"),
)
"""Terms that any objective may have besides: each is the option that turns it on."""

CONTRASTS = ("delta_fm", "t2h", "ccua_contrast", "coral", "dispersive")
"""Of these the ones whose value for an image depends on the others of its micro-batch."""


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

    tcfg_target: TcfgTarget = "auto"
    """With tcfg: what is learnt. noise: Equations 32 and 33, beside the objective. teacher:
    what the network of --init-from makes of two predictions, in a second stage that learns
    nothing else (Meng et al., 2023). auto: teacher with --init-from, else noise."""

    omega_max: NonNegativeFloat = 1.0
    """With tcfg: strengths are uniform in [0, omega_max], one an image (paper: up to 1). In a
    second stage 2 unless it is named."""

    tcfg_gamma: NonNegativeFloat = 0.25
    """With tcfg: weight of the commitment term, the 1/4 of Equation 33."""

    delta_fm: Annotated[float, Range(ge=0, lt=1, hint="The paper has 0.05.")] = 0.0
    """Weight of contrastive flow matching (Delta-FM): predictions are pushed away from those
    right for an image of another class. 0 is off; the paper: 0.05."""

    t2h: bool = False
    """Transfer from tail to head (OC): the target is that of an image of the batch that is as
    likely to have become this x_t, where its class is as frequent or more."""

    two_mask: NonNegativeFloat = 0.0
    """Weight of the consistency of two passes with different dropout masks, times K (p - d q)
    for a class, p its frequency, q ~ 1 / p, d two_mask_diversity. 0 is off; CM: 1."""

    two_mask_diversity: NonNegativeFloat = 0.2
    """With two_mask: the d there, by which rare classes are held together less, or not."""

    ccua_align: NonNegativeFloat = 0.0
    """Weight of CCUA's alignment of the predictions with and without label, times t / T. 0 is
    off; the paper: 1 for a U-Net, 0.05 for a transformer."""

    ccua_contrast: NonNegativeFloat = 0.0
    """Weight of CCUA's contrast of the network's middle features without label, times t / T.
    0 is off; the paper: as ccua_align."""

    coral: NonNegativeFloat = 0.0
    """Weight of CORAL: middle features of a class are drawn together, the others apart
    (supervised contrast, on a projection that is left out after training). 0 is off; the paper:
    0.5."""

    coral_temperature: PositiveFloat = 0.1
    """With coral: temperature of the contrast."""

    dispersive: NonNegativeFloat = 0.0
    """Weight of the dispersive loss: middle features are spread. 0 is off; the paper: 0.25."""

    def __post_init__(self) -> None:
        check_fields(self, "loss.")
        for term in ("ccua_align", "ccua_contrast"):
            if getattr(self, term) and not self.p_uncond:
                raise ValueError(
                    f"loss.p_uncond ({self.p_uncond}) leaves loss.{term} a prediction without "
                    "label that nothing teaches. Try --loss.p-uncond 0.1."
                )
        if self.tcfg and not (self.omega_max and self.p_uncond):
            option, usual = ("p_uncond", 0.1) if self.omega_max else ("omega_max", 1.0)
            raise ValueError(
                f"loss.{option} ({getattr(self, option)}) leaves loss.tcfg nothing to learn: "
                "it needs strengths above 0 and a prediction without label. Try "
                f"--loss.{option.replace('_', '-')} {usual}."
            )

        others = [term for term in TERM_OPTIONS if term != "tcfg" and getattr(self, term)]
        if self.distils and others:
            raise ValueError(
                f"loss.{others[0]} ({getattr(self, others[0])}) cannot be beside "
                "loss.tcfg_target (teacher): a second stage learns the teacher's predictions "
                "alone. Leave it out, or try --loss.tcfg-target noise."
            )

    @property
    def distils(self) -> bool:
        """Whether it is a second stage: its target is the guidance of a trained network."""
        return self.tcfg and self.tcfg_target == "teacher"

    @property
    def title(self) -> str:
        """The objective in a word, as runs are called: its name, then the further terms."""
        if self.distils:
            return "tcfg_distilled"
        return "_".join([self.name, *(term for term in TERM_OPTIONS if getattr(self, term))])

    @property
    def predictions(self) -> float:
        """Images through the network for each image of the batch, forward and backward."""
        if self.distils:
            return 1
        regulariser = self.reg_share if self.regularises else 0
        unlabelled = bool(self.tcfg or self.ccua_align or self.ccua_contrast)
        return 1 + regulariser + unlabelled + self.tcfg + bool(self.two_mask)

    @property
    def teacher_predictions(self) -> int:
        """Images through the teacher of a second stage, forward only."""
        return 2 if self.distils else 0

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Its terms that see an image beside the others of its micro-batch on one worker."""
        return tuple(term for term in CONTRASTS if getattr(self, term))

    @property
    def max_guidance(self) -> float:
        """The largest guidance strength that the network is trained with; 0 is none."""
        return self.omega_max if self.tcfg else 0.0

    @property
    def regularises(self) -> bool:
        """Whether a second label's prediction is made at all."""
        return self.name == "cbdm" and self.tau > 0 and not self.distils
