"""EDM's samplers on a mixture of two Gaussians, whose denoiser and flow are known.

In one dimension the flow keeps the value of the distribution function, so the exact end of
every path is a quantile.
"""

import math

import pytest
import torch

from cbdm_scale.diffusion.edm import EDMConfig, scaling
from cbdm_scale.sampling.guidance import classifier_free
from cbdm_scale.sampling.heun import Churn, denoise, heun

CONFIG = EDMConfig(sigma_max=20.0)
WEIGHT = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEAN = torch.tensor([-0.6, 0.4], dtype=torch.float64)
STD = torch.tensor([0.2, 0.3], dtype=torch.float64)
Y = torch.zeros(1, dtype=torch.int64)
NOISE = torch.linspace(-2.5, 2.5, 64, dtype=torch.float64).view(1, 1, 8, 8)


def ideal(x_in, c_noise, y, omega=None, augment=None):
    """F of the mixture's denoiser E[x_0 | x]."""
    sigma = (4 * c_noise.double()).exp()
    c = scaling(sigma, CONFIG.sigma_data)
    sigma, skip, out, scale = (v.view(-1, 1, 1, 1) for v in (sigma, c.c_skip, c.c_out, c.c_in))
    x = x_in / scale
    var = STD**2 + sigma.unsqueeze(-1) ** 2
    z = x.unsqueeze(-1) - MEAN
    share = (WEIGHT.log() - var.log() / 2 - z**2 / var / 2).softmax(dim=-1)
    x0 = (share * (MEAN + STD**2 / var * z)).sum(-1)
    return (x0 - skip * x) / out


def cdf(x, sigma):
    z = (x.unsqueeze(-1) - MEAN) / (STD**2 + sigma**2).sqrt()
    return (WEIGHT * torch.special.ndtr(z)).sum(-1)


def exact():
    """The end of every path, by bisection."""
    u = cdf(NOISE * CONFIG.sigma_max, torch.tensor(CONFIG.sigma_max).double())
    low, high = torch.full_like(u, -5.0), torch.full_like(u, 5.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = cdf(middle, torch.tensor(0.0).double()) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def error(num_steps, second_order=True):
    x = heun(ideal, NOISE, Y, config=CONFIG, num_steps=num_steps, second_order=second_order)
    return (x - exact()).square().mean().sqrt().item()


def test_heun_is_second_order():
    errors = [error(n) for n in (40, 80, 160)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.25)


def test_euler_is_first_order():
    assert error(80, False) / error(160, False) == pytest.approx(2, rel=0.1)


def test_heun_makes_2n_minus_1_calls_and_is_better_than_as_many_of_euler():
    calls = []

    def counted(*args):
        calls.append(1)
        return ideal(*args)

    heun(counted, NOISE, Y, config=CONFIG, num_steps=18)
    assert len(calls) == 35
    assert error(18) < error(35, False)


def test_a_gaussian_is_solved_to_its_own_spread():
    def gaussian(x_in, c_noise, y, omega=None, augment=None):
        """Data N(0, sigma_data^2): the ideal raw output is zero."""
        return torch.zeros_like(x_in)

    noise = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    y = torch.zeros(4, dtype=torch.int64)
    x = heun(gaussian, noise, y, config=EDMConfig(), num_steps=256)
    torch.testing.assert_close(x, 0.5 * noise, rtol=2e-3, atol=1e-3)


def draw(i):
    return torch.randn(NOISE.shape, generator=torch.Generator().manual_seed(i)).double()


def test_churn_of_zero_or_out_of_its_range_is_the_deterministic_sampler():
    plain = heun(ideal, NOISE, Y, config=CONFIG)
    for churn in (Churn(amount=0), Churn(amount=40, low=100, high=200)):
        assert torch.equal(heun(ideal, NOISE, Y, config=CONFIG, churn=churn, draw=draw), plain)


def test_churn_keeps_the_distribution():
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 128, 128, generator=rng, dtype=torch.float64)

    def fresh(i):
        g = torch.Generator().manual_seed(1 + i)
        return torch.randn(noise.shape, generator=g, dtype=torch.float64)

    churn = Churn(amount=10)
    x = heun(ideal, noise, Y, config=CONFIG, num_steps=40, churn=churn, draw=fresh)
    mean = (WEIGHT * MEAN).sum()
    std = ((WEIGHT * (STD**2 + MEAN**2)).sum() - mean**2).sqrt()
    assert x.mean().item() == pytest.approx(mean.item(), abs=0.02)
    assert x.std().item() == pytest.approx(std.item(), rel=0.03)
    plain = heun(ideal, noise, Y, config=CONFIG, num_steps=40)
    assert (x - plain).abs().mean() > 0.05  # the paths are others


def test_churn_is_capped_at_the_square_root_of_two():
    assert Churn(amount=1e9).gamma(1.0, 18) == pytest.approx(math.sqrt(2) - 1)
    assert Churn(amount=1.8).gamma(1.0, 18) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="sample.churn"):
        Churn(amount=-1)


def test_guidance_of_the_raw_output_is_guidance_of_the_denoiser():
    def by_label(x, level, y, omega=None, augment=None):
        return ideal(x, level, y) * (1 + y.view(-1, 1, 1, 1))

    def at(label):
        y = torch.tensor([label])
        return denoise(by_label, NOISE, 1.3, y, 0.5)

    guided = denoise(classifier_free(by_label, 0.7, 1), NOISE, 1.3, torch.tensor([0]), 0.5)
    torch.testing.assert_close(guided, 1.7 * at(0) - 0.7 * at(1))
