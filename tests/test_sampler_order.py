"""Order of accuracy on a mixture of two Gaussians, whose ideal denoiser and flow are known.

In one dimension (every pixel for itself) the flow keeps the value of the distribution function,
so the exact end of every path is a quantile.
"""

import pytest
import torch

from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.ddim import ddim
from cbdm_scale.sampling.dpm import dpm_solver
from cbdm_scale.sampling.steps import predict_x0

WEIGHT = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEAN = torch.tensor([-0.6, 0.4], dtype=torch.float64)
STD = torch.tensor([0.2, 0.3], dtype=torch.float64)
FINE = LinearSchedule(ScheduleConfig(num_steps=20_001, beta_1=5e-6, beta_T=1e-3))


def marginal(ab):
    """Means and standard deviations (2,) of the mixture's parts in x_t."""
    return ab.sqrt() * MEAN, (ab * STD**2 + 1 - ab).sqrt()


def ideal(x, t, y, omega=None, augment=None):
    """E[eps | x_t] = -sigma times the score of the mixture at level t."""
    ab = FINE.alpha_bar[t[0]]
    mean, std = marginal(ab)
    z = (x.unsqueeze(-1) - mean) / std  # (N, C, H, W, 2)
    share = (WEIGHT.log() - std.log() - z**2 / 2).softmax(dim=-1)
    return (1 - ab).sqrt() * (share * z / std).sum(dim=-1)


def cdf(x, ab):
    mean, std = marginal(ab)
    z = (x.unsqueeze(-1) - mean) / std
    return (WEIGHT * torch.special.ndtr(z)).sum(dim=-1)


def quantile(u, ab):
    """By bisection."""
    low, high = torch.full_like(u, -5.0), torch.full_like(u, 5.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = cdf(middle, ab) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


NOISE = torch.linspace(-2.5, 2.5, 64, dtype=torch.float64).view(1, 1, 8, 8)
Y = torch.zeros(1, dtype=torch.int64)


def error(sampler, num_steps, spacing):
    """Root mean square distance to the exact path, both denoised from level t = 0."""
    at_0 = quantile(cdf(NOISE, FINE.alpha_bar[-1]), FINE.alpha_bar[0])
    exact = predict_x0(ideal, at_0, 0, FINE.alpha_bar[0].item(), Y, clip=False)
    x = sampler(
        ideal, NOISE, Y, schedule=FINE, num_steps=num_steps, clip=False, spacing=spacing
    )
    return (x - exact).square().mean().sqrt().item()


def test_ddim_is_first_order_on_a_mixture():
    for spacing in ("uniform", "log_snr"):
        assert error(ddim, 81, spacing) / error(ddim, 161, spacing) == pytest.approx(
            2, rel=0.05
        )


def test_dpm_solver_is_second_order_on_a_mixture():
    errors = [error(dpm_solver, n, "log_snr") for n in (41, 81, 161)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.06)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.06)


def test_forty_steps_of_dpm_solver_are_better_than_three_hundred_of_ddim():
    assert error(dpm_solver, 40, "log_snr") < error(ddim, 300, "log_snr")
