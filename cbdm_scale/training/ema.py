"""Exponential moving average of the weights, with its memory measured in images."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cbdm_scale.torch_internals import foreach_add_, foreach_lerp_, foreach_mul_, foreach_sub


class RunningAverage:
    """Averages of a network's parameters, moved towards them by one call for all.

    The lists are made once: a network has hundreds of parameters.
    """

    def __init__(self, averages: Iterable[Tensor]):
        self.averages = list(averages)
        self.net: nn.Module | None = None
        self.weights: list[Tensor] = []

    @torch.no_grad()
    def take(self, net: nn.Module, share: float | Tensor) -> None:
        """averages += share (weights - averages); a tensor () is a captured step's share."""
        if net is not self.net:
            self.net, self.weights = net, list(net.parameters())
        if isinstance(share, Tensor):
            change = foreach_sub(self.weights, self.averages)
            foreach_mul_(change, share)
            foreach_add_(self.averages, change)
        else:
            foreach_lerp_(self.averages, self.weights, share)


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
        self.running = RunningAverage(self.net.parameters())
        self.varies = ramp > 0
        """Whether the decay is another in every step."""

    def decay(self, images_seen: int, batch_size: int) -> float:
        """Weight of the old average in a step of ``batch_size`` images."""
        halflife = min(self.halflife, self.ramp * images_seen) if self.ramp else self.halflife
        return float(0.5 ** (batch_size / max(halflife, 1e-8)))
