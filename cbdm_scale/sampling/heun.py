"""EDM's samplers (Karras et al., 2022): Heun's second order, with or without churn.

``net`` is a network of EDM, called with x scaled by c_in and the level c_noise; guidance around
it is guidance of its denoiser, since D is affine in F with coefficients that know no label.
The scaling around the network is done in the precision of x, whatever autocast does inside.
Shapes: N = batch, C = channels, H = height, W = width.
"""

import math

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.edm import scaling
from cbdm_scale.diffusion.schedule import expand_as
from cbdm_scale.sampling.guidance import at_level
from cbdm_scale.sampling.options import HeunConfig
from cbdm_scale.sampling.steps import Draw
from cbdm_scale.storage.checks import PositiveInt, check_value

USUAL = HeunConfig()


def noise_levels(config: HeunConfig, num_steps: int) -> list[float]:
    """sigma_max to sigma_min, evenly spaced to the power 1 / rho, then 0 (Equation 5)."""
    check_value("sample.num_steps", num_steps, PositiveInt, default=18)
    if num_steps == 1:
        return [config.sigma_max, 0.0]
    high, low = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    grid = torch.linspace(high, low, num_steps, dtype=torch.float64) ** config.rho
    return [*grid.tolist(), 0.0]


def churn_gamma(config: HeunConfig, sigma: float, num_steps: int) -> float:
    """Share by which churn raises sigma before a step (Algorithm 2)."""
    if not config.churn_from <= sigma <= config.churn_to:
        return 0.0
    return min(config.churn / num_steps, math.sqrt(2) - 1)


def denoise(net: Net, x: Tensor, sigma: float, y: Tensor, sigma_data: float) -> Tensor:
    """D(x; sigma, y) = c_skip x + c_out F(c_in x; c_noise, y) (Equation 7), in x's dtype."""
    here = torch.tensor([sigma], dtype=torch.float64)  # on the CPU
    guided = at_level(net, scaling(here, sigma_data).c_noise.to(x.dtype))
    level = torch.full((len(x),), sigma, dtype=torch.float64, device=x.device)
    c = scaling(level, sigma_data)
    raw = guided(expand_as(c.c_in, x) * x, c.c_noise.to(x.dtype), y).to(x.dtype)
    return expand_as(c.c_skip, x) * x + expand_as(c.c_out, x) * raw


@torch.no_grad()
def heun(
    net: Net,
    noise: Tensor,
    y: Tensor,
    *,
    sigma_data: float,
    config: HeunConfig = USUAL,
    num_steps: int = 18,
    draw: Draw | None = None,
    second_order: bool = True,
) -> Tensor:
    """Solve dx / dsigma = (x - D(x; sigma)) / sigma from sigma_max to 0 (Algorithm 2).

    noise (N, C, H, W) standard normal. A step is Euler's, then the mean of the slopes at both
    ends; the last goes to 0, where there is no slope, and is Euler's alone: 2 num_steps - 1
    network calls. ``second_order`` False is Euler's throughout. ``draw`` gives the new noise of
    step i, and is not called where there is no churn.
    """
    sigmas = noise_levels(config, num_steps)
    x = noise * sigmas[0]  # (N, C, H, W)

    def slope(x: Tensor, sigma: float) -> Tensor:
        return (x - denoise(net, x, sigma, y, sigma_data)) / sigma

    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        gamma = churn_gamma(config, sigma, num_steps)
        if gamma > 0:
            assert draw is not None, "churn needs noise"
            raised = sigma * (1 + gamma)
            x = x + (raised**2 - sigma**2) ** 0.5 * config.churn_noise * draw(i).to(x.dtype)
            sigma = raised
        d = slope(x, sigma)
        ahead = x + (following - sigma) * d
        if second_order and following > 0:
            d = (d + slope(ahead, following)) / 2
            ahead = x + (following - sigma) * d
        x = ahead
    return x
