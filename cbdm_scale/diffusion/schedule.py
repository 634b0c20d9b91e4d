"""The variance-preserving process of DDPM (Ho et al., 2020), Section 3.1 of CBDM.

Shapes: N = batch, C = channels, H = height, W = width, T = number of steps.
Steps are 0-based: t = 0 is the least noisy, t = T - 1 the noisiest.
"""

import torch
from torch import Tensor, nn

from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.process import Noisy


def expand_as(v: Tensor, x: Tensor) -> Tensor:
    """Give v of shape (N,) as many trailing ones as x has axes: (N, 1, 1, 1)."""
    return v.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


class LinearSchedule(nn.Module):
    """beta rises linearly from beta_1 to beta_T; alpha_bar_t = prod_{i<=t} (1 - beta_i)."""

    beta: Tensor  # (T,) float64
    alpha_bar: Tensor  # (T,) float64

    def __init__(self, config: ScheduleConfig | None = None):
        super().__init__()
        config = config or ScheduleConfig()
        self.num_steps = config.num_steps
        beta = torch.linspace(
            config.beta_1, config.beta_T, config.num_steps, dtype=torch.float64
        )  # (T,)
        self.register_buffer("beta", beta)
        self.register_buffer("alpha_bar", torch.cumprod(1 - beta, dim=0))

    def add_noise(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Sample q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)."""
        alpha_bar = self.alpha_bar[t]  # (N,)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        return expand_as(signal, x0) * x0 + expand_as(noise, x0) * eps  # (N, C, H, W)

    def step(self, u: Tensor) -> Tensor:
        """Uniform numbers (N,) in (0, 1) -> steps (N,) int64, each of 0..T-1 as often."""
        return (u * self.num_steps).long()

    def noisy(self, x0: Tensor, t: Tensor, eps: Tensor) -> Noisy:
        """x_t, level t, target eps (Equation 1)."""
        return Noisy(self.add_noise(x0, t, eps), t, eps)

    @property
    def sigma_data(self) -> float:
        """Images of unit variance keep the variance of x_t."""
        return 1.0

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 / alpha_bar_t - 1), the noise in x_t / sqrt(alpha_bar_t): (N,) float64."""
        return (1 / self.alpha_bar[t] - 1).sqrt()

    def target_slope(self, t: Tensor) -> Tensor:
        """-1 / sigma, as eps = (x_t / sqrt(alpha_bar_t) - x_0) / sigma: (N,) float64."""
        return -1 / self.sigma(t)

    def relative(self, level: Tensor) -> Tensor:
        """t / T: (N,) -> (N,) float64."""
        return level.double() / self.num_steps
