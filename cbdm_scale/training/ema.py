"""Exponential moving average of the weights, with its memory measured in images."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Average with a half-life of ``halflife`` images.

    The authors' decay of 0.9999 a step of 64 images is a half-life of 443,600 images. A
    ``ramp`` above 0 caps the half-life at that share of the images seen, so that a short run
    soon forgets its random start; 0, as in the paper, never caps.
    """

    def __init__(self, net: nn.Module, halflife: float, ramp: float = 0.0):
        self.halflife = halflife
        self.ramp = ramp
        self.net = copy.deepcopy(net).eval().requires_grad_(False)

    def decay(self, images_seen: int, batch_size: int) -> float:
        """Weight of the old average in a step of ``batch_size`` images."""
        halflife = min(self.halflife, self.ramp * images_seen) if self.ramp else self.halflife
        return float(0.5 ** (batch_size / max(halflife, 1e-8)))

    @torch.no_grad()
    def update(self, net: nn.Module, images_seen: int, batch_size: int) -> None:
        """Take in the weights after a step of ``batch_size`` that ends at ``images_seen``."""
        averages: list[Tensor] = list(self.net.parameters())
        weights: list[Tensor] = list(net.parameters())
        decay = self.decay(images_seen, batch_size)
        get_ema_multi_avg_fn(decay)(averages, weights, None)
