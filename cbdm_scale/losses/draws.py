"""The random numbers of a batch. Shapes: N = images, K = classes, T = steps."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.labels import draw_labels
from cbdm_scale.diffusion.process import Process
from cbdm_scale.losses.options import LossConfig


@dataclass(frozen=True)
class Draws:
    """What chance decides for N images, each number a function of its image alone."""

    t: Tensor  # (N,) steps: int64 in 0..T-1, or under EDM float64 quantiles in (0, 1)
    eps: Tensor  # (N, C, H, W) standard normal
    dropped: Tensor  # (N,) bool, label dropped for guidance
    y_alt: Tensor  # (N,) int64 labels y' ~ q_Y
    rows: Tensor  # (M,) int64, the images that the regulariser sees
    augment: Tensor | None = None  # (N, 9) how x0 was augmented, if the network is told
    omega: Tensor | None = None  # (N,) float32 guidance strength, if the network is told
    guided: Tensor | None = None  # (G,) int64, the images that learn it: label not dropped

    def to(self, device: torch.device) -> "Draws":
        def move(f: Tensor) -> Tensor:
            return f.to(device, non_blocking=True)

        def move_any(f: Tensor | None) -> Tensor | None:
            return None if f is None else move(f)

        fields = move(self.t), move(self.eps), move(self.dropped), move(self.y_alt)
        more = move_any(self.augment), move_any(self.omega), move_any(self.guided)
        return Draws(*fields, move(self.rows), *more)


@dataclass(frozen=True)
class Drawer:
    """Makes the `Draws` of images by the plan's rule, on the device that will use them."""

    config: LossConfig
    process: Process
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
            return rng.uniform(self.seed, purpose, images).squeeze(1)  # (N,) float64

        t = self.process.step(u("timestep"))
        dropped = u("label drop") < self.config.p_uncond
        y_alt = draw_labels(self.label_probs, u("other label"))
        seen = ~dropped & (u("regularise") < self.config.reg_share) & self.config.regularises
        rows = seen.nonzero().squeeze(1)  # small and on the CPU, so that no device waits
        omega = guided = None
        if self.config.tcfg:
            omega = (u("omega") * self.config.omega_max).float()
            guided = (~dropped).nonzero().squeeze(1)

        numel = math.prod(shape)
        eps = rng.normal(self.seed, "noise", images.to(device), numel).view(-1, *shape)
        return Draws(t, eps, dropped, y_alt, rows, augment, omega, guided).to(device)
