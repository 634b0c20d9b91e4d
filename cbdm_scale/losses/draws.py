"""The random numbers of a batch. Shapes: N = images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.process import Process
from cbdm_scale.losses.term import Draws, Term


@dataclass(frozen=True)
class Drawer:
    """Makes the `Draws` of images by the plan's rule, on the device that will use them."""

    process: Process
    terms: tuple[Term, ...]
    p_uncond: float
    seed: int

    def __call__(
        self,
        images: Tensor,
        shape: tuple[int, ...],
        device: torch.device,
        augment: Tensor | None = None,
    ) -> Draws:
        """images (N,) int64 numbers since the run began; shape (C, H, W); augment (N, 9)."""
        t = self.process.step(rng.uniform(self.seed, "timestep", images)[:, 0])
        dropped = rng.uniform(self.seed, "label drop", images)[:, 0] < self.p_uncond
        kept = (~dropped).nonzero()[:, 0]
        term_draws: dict[str, Tensor] = {}
        for term in self.terms:
            drawn = term.draw(self.seed, images, dropped)
            assert not drawn.keys() & term_draws.keys(), "two terms draw under one name"
            term_draws |= drawn
        numel = math.prod(shape)
        eps = rng.normal(self.seed, "noise", images.to(device), numel).view(-1, *shape)
        return Draws(t, eps, dropped, kept, term_draws, augment).to(device)
