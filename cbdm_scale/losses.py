"""Training losses of "Class-Balancing Diffusion Models" (Qin et al., CVPR 2023).

A loss is called as ``loss(net, x0, y, draws)`` and returns per-sample terms: name -> (N,).
It draws nothing itself: `Draws` holds the random numbers of these images. Reduction, logging
and the cluster belong to the train loop.

Shapes: N = batch, M = images that the regulariser sees, C, H, W = image, K = classes
(label K means "none"), T = steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from cbdm_scale import draws as random
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.labels import class_probs, draw_labels
from cbdm_scale.types import Net

LossName = Literal["ddpm", "cbdm"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    name: LossName = "cbdm"
    """The objective: ddpm (Equation 1) or cbdm (Equation 4)."""

    tau: float = 1.0
    """Weight of the regulariser: w(t) = tau * t / T (Equation 4's tau is this / T)."""

    gamma: float = 0.25
    """Weight of the commitment term, as in Equation 4."""

    label_power: float = 1.0
    """y' is drawn with probability counts ** power: 1 = Y^train, 0.5 = Y^sqr, 0 = Y^bal."""

    p_uncond: float = 0.1
    """Probability, per image, that the label is dropped for classifier-free guidance."""

    reg_share: float = 1.0
    """Share of the images that the regulariser sees, weighted by its inverse (paper: 1)."""

    def __post_init__(self) -> None:
        if self.name not in get_args(LossName):
            raise ValueError(
                f"loss.name ({self.name}) is no objective. "
                f"Choose {' or '.join(get_args(LossName))}."
            )
        for option, high, way_out in (
            ("label_power", 1, "1 keeps the training frequencies, 0 makes classes uniform"),
            ("p_uncond", 1, "the paper found 0.1 best"),
            ("tau", math.inf, "0 is plain DDPM, 1 the paper's default"),
            ("gamma", math.inf, "the paper uses 0.25"),
        ):
            value = getattr(self, option)
            if not (0 <= value <= high and math.isfinite(value)):
                allowed = "be finite and not negative" if high > 1 else "lie in [0, 1]"
                raise ValueError(f"loss.{option} must {allowed}, got {value}: {way_out}.")
        if not 0 < self.reg_share <= 1:
            raise ValueError(
                f"loss.reg_share must lie in (0, 1], got {self.reg_share}: 1 is the paper's "
                "objective; for none of the regulariser use --loss.name ddpm."
            )

    @property
    def regularises(self) -> bool:
        return self.name == "cbdm" and self.tau > 0


def mean_sq(x: Tensor) -> Tensor:
    """Squared norm as a mean over all axes but the first: (N, ...) -> (N,)."""
    return x.square().flatten(1).mean(1)


# ----------------------------------------------------------------------------
# The random numbers of a batch.


@dataclass(frozen=True)
class Draws:
    """What chance decides for N images, each number a function of its image alone."""

    t: Tensor  # (N,) int64 steps in 0..T-1
    eps: Tensor  # (N, C, H, W) standard normal
    dropped: Tensor  # (N,) bool, label dropped for guidance
    y_alt: Tensor  # (N,) int64 labels y' ~ q_Y
    rows: Tensor  # (M,) int64, the images that the regulariser sees
    augment: Tensor | None = None  # (N, 9) how x0 was augmented, if the network is told

    def to(self, device: torch.device) -> "Draws":
        def move(f: Tensor) -> Tensor:
            return f.to(device, non_blocking=True)

        fields = move(self.t), move(self.eps), move(self.dropped), move(self.y_alt)
        augment = None if self.augment is None else move(self.augment)
        return Draws(*fields, move(self.rows), augment)


@dataclass(frozen=True)
class Drawer:
    """Makes the `Draws` of images by the plan's rule, on the device that will use them."""

    config: LossConfig
    num_steps: int
    label_probs: Tensor  # (K,) q_Y
    seed: int

    def __call__(
        self,
        images: Tensor,
        shape: tuple[int, ...],
        device: torch.device,
        augment: Tensor | None = None,
    ) -> Draws:
        """images (N,) int64 numbers since the run began; shape (C, H, W); augment (N, 9)."""

        def u(purpose: str) -> Tensor:
            return random.uniform(self.seed, purpose, images).squeeze(1)  # (N,) float64

        t = (u("timestep") * self.num_steps).long()
        dropped = u("label drop") < self.config.p_uncond
        y_alt = draw_labels(self.label_probs, u("other label"))
        seen = ~dropped & (u("regularise") < self.config.reg_share) & self.config.regularises
        rows = seen.nonzero().squeeze(1)  # small and on the CPU, so that no device waits

        numel = math.prod(shape)
        eps = random.normal(self.seed, "noise", images.to(device), numel).view(-1, *shape)
        return Draws(t, eps, dropped, y_alt, rows, augment).to(device)


# ----------------------------------------------------------------------------
# Denoising loss of DDPM (Equation 1).


@dataclass(frozen=True)
class DDPMLoss:
    schedule: LinearSchedule
    null_label: int  # K

    def __call__(self, net: Net, x0: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        x_t = self.schedule.add_noise(x0, draws.t, draws.eps)
        y_in = y.masked_fill(draws.dropped, self.null_label)
        e = net(x_t, draws.t, y_in, augment=draws.augment).float()
        dm = mean_sq(e - draws.eps)
        return {"total": dm, "dm": dm}


# ----------------------------------------------------------------------------
# Class-balancing loss (Equation 4, Algorithm 1).


def cbdm_terms(
    e: Tensor, e_alt: Tensor, weight: Tensor, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The regulariser L_r, the commitment term L_rc and L_r + gamma L_rc of Equation 4.

    e       (M, C, H, W)  net(x_t, t, y), y the label of the image
    e_alt   (M, C, H, W)  net(x_t, t, y'), y' drawn from Y
    weight  (M,)          w(t) = tau * t / T
    Each norm is a mean over (C, H, W). The two values are equal; only the gradients differ.
    """
    r = weight * mean_sq(e - e_alt.detach())
    rc = weight * mean_sq(e.detach() - e_alt)
    return r, rc, r + gamma * rc


@dataclass(frozen=True)
class CBDMLoss:
    """L = L_DM + L_r + gamma L_rc; both predictions in one network call.

    e' is predicted only for the images that the regulariser sees: not for those whose label
    was dropped, and for a random share of the others if `reg_share` < 1, whose weight is then
    divided by the share, so that the expectation stays.
    """

    schedule: LinearSchedule
    null_label: int  # K
    tau: float
    gamma: float
    reg_share: float = 1.0

    def __call__(self, net: Net, x0: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        t, rows, a = draws.t, draws.rows, draws.augment

        # Predict, both labels in one forward so that DDP sees a single graph.
        x_t = self.schedule.add_noise(x0, t, draws.eps)
        y_in = y.masked_fill(draws.dropped, self.null_label)
        out = net(
            torch.cat([x_t, x_t[rows]]),
            torch.cat([t, t[rows]]),
            torch.cat([y_in, draws.y_alt[rows]]),
            augment=None if a is None else torch.cat([a, a[rows]]),
        ).float()
        e, e_alt = out[: len(y)], out[len(y) :]  # (N, C, H, W), (M, C, H, W)

        # Compare.
        dm = mean_sq(e - draws.eps)  # (N,)
        weight = self.tau * t[rows] / self.schedule.num_steps / self.reg_share  # (M,)
        r, rc, pull = (
            torch.zeros_like(dm).index_add(0, rows, term)
            for term in cbdm_terms(e[rows], e_alt, weight, self.gamma)
        )
        return {"total": dm + pull, "dm": dm, "r": r, "rc": rc}


# ----------------------------------------------------------------------------

Loss = Callable[[Net, Tensor, Tensor, Draws], dict[str, Tensor]]


def build_loss(
    config: LossConfig, schedule: LinearSchedule, counts: Tensor, seed: int
) -> tuple[Loss, Drawer]:
    """The loss that ``config`` names and what draws for it. ``counts`` (K,) training images."""
    probs = class_probs(counts, config.label_power)
    drawer = Drawer(config, schedule.num_steps, probs, seed)
    num_classes = len(counts)
    if config.name == "ddpm":
        return DDPMLoss(schedule, num_classes), drawer
    cbdm = CBDMLoss(schedule, num_classes, config.tau, config.gamma, config.reg_share)
    return cbdm, drawer
