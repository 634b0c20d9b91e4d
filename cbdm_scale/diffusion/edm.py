"""The process of EDM (Karras et al., 2022): noise levels sigma, preconditioning, loss weight.

The network F sees a scaled image and gives a unit-variance target; the denoiser is

    D(x; sigma, y) = c_skip x + c_out F(c_in x; c_noise, y)            (Equation 7)

and lambda(sigma) |D - x_0|^2 = |F - target|^2 with c_out^2 lambda = 1 (Equation 8), so that a
loss compares raw outputs F with unit weight. Shapes: N = batch, C, H, W = image.

A step t in (0, 1) is the quantile of its sigma under the law of training: T = 1, t / T is t.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.diffusion.options import EDMConfig
from cbdm_scale.diffusion.process import Noisy
from cbdm_scale.diffusion.schedule import expand_as


@dataclass(frozen=True)
class Scaling:
    """Table 1, column "Ours", at levels sigma (N,): each (N,) float64."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def scaling(sigma: Tensor, sigma_data: float) -> Scaling:
    """c_skip and c_out keep the target at unit variance, c_in the input; sigma (N,) > 0."""
    sigma = sigma.double()
    total = sigma.square() + sigma_data**2
    return Scaling(
        c_skip=sigma_data**2 / total,
        c_out=sigma * sigma_data / total.sqrt(),
        c_in=total.rsqrt(),
        c_noise=sigma.log() / 4,
    )


class EDM:
    """The process as losses and samplers know it (process.py)."""

    num_steps = 1

    def __init__(self, config: EDMConfig | None = None):
        self.config = config or EDMConfig()

    @property
    def sigma_data(self) -> float:
        """That of the options."""
        return self.config.sigma_data

    def step(self, u: Tensor) -> Tensor:
        """A uniform number is its own quantile: (N,) -> (N,) float64 in (0, 1)."""
        return u.double()

    def sigma(self, t: Tensor) -> Tensor:
        """The noise at quantiles t (N,) of ln(sigma) ~ N(p_mean, p_std^2): (N,) float64."""
        normal: Tensor = torch.special.ndtri(t).double()
        return (self.config.p_mean + self.config.p_std * normal).exp()

    def noisy(self, x0: Tensor, t: Tensor, eps: Tensor) -> Noisy:
        """c_in x with x = x_0 + sigma eps, c_noise, and the target (x_0 - c_skip x) / c_out.

        The target (Equation 8) is computed as (sigma / sigma_data x_0 - sigma_data eps) c_in:
        the same, without the small difference of large numbers that it is for small sigma.
        """
        sigma, c = self.sigma(t), scaling(self.sigma(t), self.config.sigma_data)
        x = expand_as(c.c_in, x0) * (x0 + expand_as(sigma, x0) * eps)
        of_image = expand_as(c.c_in * sigma / self.config.sigma_data, x0)
        of_noise = expand_as(c.c_in * self.config.sigma_data, x0)
        return Noisy(x, c.c_noise.to(x0.dtype), of_image * x0 - of_noise * eps)

    def target_slope(self, t: Tensor) -> Tensor:
        """1 / c_out, as the target is (x_0 - c_skip x) / c_out: (N,) float64."""
        return 1 / scaling(self.sigma(t), self.config.sigma_data).c_out

    def relative(self, level: Tensor) -> Tensor:
        """P(sigma' < sigma) under the training law, of c_noise (N,): (N,) float64 in [0, 1].

        It is what t / T is for DDPM, so that the weight of the class-balancing loss, tau times
        this, keeps its meaning.
        """
        z = (4 * level.double() - self.config.p_mean) / self.config.p_std
        share: Tensor = torch.special.ndtr(z)
        return share
