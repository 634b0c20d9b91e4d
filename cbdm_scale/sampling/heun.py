"""EDM's samplers (Karras et al., 2022): Heun's second order, with or without churn.

``net`` is a network of EDM, called with x scaled by c_in and the level c_noise; guidance around
it is guidance of its denoiser, since D is affine in F with coefficients that know no label.
The scaling around the network is done in the precision of x, whatever autocast does inside.
Shapes: N = batch, C = channels, H = height, W = width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.edm import scaling
from cbdm_scale.diffusion.schedule import expand_as
from cbdm_scale.sampling.steps import Draw


@dataclass(frozen=True, kw_only=True)
class HeunConfig:
    sigma_min: float = 0.002
    """Smallest noise of the path, before 0."""

    sigma_max: float = 80.0
    """Noise that the path starts from."""

    rho: float = 7.0
    """Exponent of the levels between: larger puts more of them near sigma_min."""

    churn: float = 0.0
    """S_churn, noise added before each step and taken off again by it: 0 is the deterministic
    sampler (Algorithm 1). The paper: 10 to 80 with hundreds of steps (Algorithm 2)."""

    churn_from: float = 0.05
    """S_tmin: no churn below this sigma. These three are the paper's for ImageNet at 64 px."""

    churn_to: float = 50.0
    """S_tmax: no churn above this sigma."""

    churn_noise: float = 1.003
    """S_noise: standard deviation of the new noise, a little above 1 against lost detail."""

    def __post_init__(self) -> None:
        for name, way_out in (
            ("sigma_min", "the paper has 0.002"),
            ("rho", "the paper has 7"),
            ("churn_noise", "the paper has 1.003 to 1.007"),
        ):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"sample.heun.{name} must be above 0, got {value}: {way_out}.")
        if not self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"sample.heun.sigma_max ({self.sigma_max}) must be above sample.heun.sigma_min "
                f"({self.sigma_min}). Try 80."
            )
        if not 0 <= self.churn < math.inf:
            raise ValueError(
                f"sample.heun.churn must be 0 or more, got {self.churn}. Try 0, which is none."
            )
        if not 0 <= self.churn_from <= self.churn_to < math.inf:
            raise ValueError(
                f"sample.heun.churn_from ({self.churn_from}) and sample.heun.churn_to "
                f"({self.churn_to}) must satisfy 0 <= from <= to, in units of sigma. Try 0.05 "
                "and 50."
            )

    def sigmas(self, num_steps: int) -> list[float]:
        """sigma_max to sigma_min, evenly spaced to the power 1 / rho, then 0 (Equation 5)."""
        if num_steps < 1:
            raise ValueError(f"sample.num_steps must be at least 1, got {num_steps}. Try 18.")
        if num_steps == 1:
            return [self.sigma_max, 0.0]
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        grid = torch.linspace(high, low, num_steps, dtype=torch.float64) ** self.rho
        return [*grid.tolist(), 0.0]

    def gamma(self, sigma: float, num_steps: int) -> float:
        """Share by which churn raises sigma before a step."""
        if not self.churn_from <= sigma <= self.churn_to:
            return 0.0
        return min(self.churn / num_steps, math.sqrt(2) - 1)


USUAL = HeunConfig()


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
    sigma_data: float,
    config: HeunConfig = USUAL,
    num_steps: int = 18,
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
    sigmas = config.sigmas(num_steps)
    x = noise * sigmas[0]  # (N, C, H, W)

    def slope(x: Tensor, sigma: float) -> Tensor:
        x0 = denoise(net, x, sigma, y, sigma_data)
        return (x - (x0.clamp(-1, 1) if clip else x0)) / sigma

    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        gamma = config.gamma(sigma, num_steps)
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
