"""What losses and samplers know of noise, whichever process makes it.

Losses compare raw outputs of the network with the target in the mean square, and so both
processes are one to them:

    ddpm    input x_t      level t         target eps                      schedule.py
    edm     input c_in x   level c_noise   target (x_0 - c_skip x) / c_out    edm.py

Shapes: N = images, C, H, W = image, T = steps.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Noisy:
    """Images with noise: what the network is given of them, and what it should answer."""

    x: Tensor  # (N, C, H, W)
    level: Tensor  # (N,)
    target: Tensor  # (N, C, H, W)


class Process(Protocol):
    """Noise in training. The relative step is t / T: the share of training with less noise."""

    @property
    def num_steps(self) -> int:
        """T; 1 where a step is its own relative step."""
        ...

    def step(self, u: Tensor) -> Tensor:
        """The steps t (N,) of uniform numbers u (N,) in (0, 1), rising with them."""
        ...

    def noisy(self, x0: Tensor, t: Tensor, eps: Tensor) -> Noisy:
        """Images x0 (N, C, H, W) with noise of steps t (N,) made from standard normal eps."""
        ...

    @property
    def sigma_data(self) -> float:
        """Standard deviation that images are taken to have, in the units of ``sigma``."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Noise of steps t (N,) on an image of full strength, x_0 + sigma eps: (N,) float64."""
        ...

    def target_slope(self, t: Tensor) -> Tensor:
        """What the target at the same x gains with x_0, by steps t (N,): (N,) float64."""
        ...

    def relative(self, level: Tensor) -> Tensor:
        """t / T of the level that the network is given, (N,) -> (N,) float64 in [0, 1]."""
        ...
