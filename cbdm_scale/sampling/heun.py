"""EDM's samplers (Karras et al., 2022): Heun's second order, with or without churn.

``net`` is a network of EDM, called with x scaled by c_in and the level c_noise; guidance around
it is guidance of its denoiser, since D is affine in F with coefficients that know no label.
Shapes: N = batch, C = channels, H = height, W = width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.diffusion.edm import EDMConfig, sampling_sigmas, scaling
from cbdm_scale.diffusion.schedule import expand_as
from cbdm_scale.sampling.steps import Draw
from cbdm_scale.types import Net


@dataclass(frozen=True, kw_only=True)
class Churn:
    """Noise that is added before each step and taken off again by it (Algorithm 2)."""

    amount: float = 0.0
    """S_churn; 0 is the deterministic sampler of Algorithm 1."""

    low: float = 0.0
    """S_tmin: no churn below this sigma."""

    high: float = math.inf
    """S_tmax: no churn above this sigma."""

    noise: float = 1.0
    """S_noise: standard deviation of the new noise, a little above 1 against lost detail."""

    def __post_init__(self) -> None:
        if not 0 <= self.amount < math.inf or not 0 < self.noise < math.inf:
            raise ValueError(
                f"sample.churn ({self.amount}) must be 0 or more and its noise ({self.noise}) "
                "above 0. Try 0 and 1."
            )

    def gamma(self, sigma: float, num_steps: int) -> float:
        """Share by which sigma rises before the step."""
        if not self.low <= sigma <= self.high:
            return 0.0
        return min(self.amount / num_steps, math.sqrt(2) - 1)


NO_CHURN = Churn()


def denoise(net: Net, x: Tensor, sigma: float, y: Tensor, sigma_data: float) -> Tensor:
    """D(x; sigma, y) = c_skip x + c_out F(c_in x; c_noise, y) (Equation 7), in x's dtype."""
    level = torch.full((len(x),), sigma, dtype=torch.float64, device=x.device)
    c = scaling(level, sigma_data)
    raw = net(expand_as(c.c_in, x) * x, c.c_noise.to(x.dtype), y).to(x.dtype)
    return expand_as(c.c_skip, x) * x + expand_as(c.c_out, x) * raw


@torch.no_grad()
def heun(
    net: Net,
    noise: Tensor,
    y: Tensor,
    *,
    config: EDMConfig,
    num_steps: int = 18,
    churn: Churn = NO_CHURN,
    draw: Draw | None = None,
    second_order: bool = True,
    clip: bool = False,
) -> Tensor:
    """Solve dx / dsigma = (x - D(x; sigma)) / sigma from sigma_max to 0 (Algorithm 2).

    noise (N, C, H, W) standard normal. A step is Euler's, then the mean of the slopes at both
    ends; the last goes to 0, where there is no slope, and is Euler's alone: 2 num_steps - 1
    network calls. ``second_order`` False is Euler's throughout. ``draw`` gives the new noise of
    step i, and is not asked where there is no churn.
    """
    sigmas = sampling_sigmas(num_steps, config)
    x = noise * sigmas[0]  # (N, C, H, W)

    def slope(x: Tensor, sigma: float) -> Tensor:
        x0 = denoise(net, x, sigma, y, config.sigma_data)
        return (x - (x0.clamp(-1, 1) if clip else x0)) / sigma

    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        gamma = churn.gamma(sigma, num_steps)
        if gamma > 0:
            assert draw is not None, "churn needs noise"
            raised = sigma * (1 + gamma)
            x = x + (raised**2 - sigma**2) ** 0.5 * churn.noise * draw(i).to(x.dtype)
            sigma = raised
        d = slope(x, sigma)
        ahead = x + (following - sigma) * d
        if second_order and following > 0:
            d = (d + slope(ahead, following)) / 2
            ahead = x + (following - sigma) * d
        x = ahead
    return x
