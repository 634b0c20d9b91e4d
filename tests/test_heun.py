"""EDM's samplers on a mixture of two Gaussians, whose denoiser and flow are known.

In one dimension the flow keeps the value of the distribution function, so the exact end of
every path is a quantile.
"""

import math
from dataclasses import replace

import pytest
import torch

from cbdm_scale.diffusion.edm import scaling
from cbdm_scale.sampling.guidance import guide
from cbdm_scale.sampling.heun import churn_gamma, denoise, heun, noise_levels
from cbdm_scale.sampling.options import HeunConfig

SIGMA_DATA = 0.5
CONFIG = HeunConfig(sigma_max=20.0, churn_from=0.0, churn_noise=1.0)
WEIGHT = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEAN = torch.tensor([-0.6, 0.4], dtype=torch.float64)
STD = torch.tensor([0.2, 0.3], dtype=torch.float64)
Y = torch.zeros(1, dtype=torch.int64)
NOISE = torch.linspace(-2.5, 2.5, 64, dtype=torch.float64).view(1, 1, 8, 8)


def ideal(x_in, c_noise, y, omega=None, augment=None):
    """F of the mixture's denoiser E[x_0 | x]."""
    sigma = (4 * c_noise.double()).exp()
    c = scaling(sigma, SIGMA_DATA)
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


def run(net=ideal, noise=NOISE, y=Y, config=CONFIG, **options):
    return heun(net, noise, y, sigma_data=SIGMA_DATA, config=config, **options)


def error(num_steps, second_order=True):
    x = run(num_steps=num_steps, second_order=second_order)
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

    run(counted, num_steps=18)
    assert len(calls) == 35
    assert error(18) < error(35, False)


def test_a_gaussian_is_solved_to_its_own_spread():
    def gaussian(x_in, c_noise, y, omega=None, augment=None):
        """Data N(0, sigma_data^2): the ideal raw output is zero."""
        return torch.zeros_like(x_in)

    noise = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    y = torch.zeros(4, dtype=torch.int64)
    x = run(gaussian, noise, y, HeunConfig(), num_steps=256)
    torch.testing.assert_close(x, 0.5 * noise, rtol=2e-3, atol=1e-3)


def draw(i):
    return torch.randn(NOISE.shape, generator=torch.Generator().manual_seed(i)).double()


def test_churn_of_zero_or_out_of_its_range_is_the_deterministic_sampler():
    plain = run()
    for options in ({"churn": 0}, {"churn": 40, "churn_from": 100, "churn_to": 200}):
        assert torch.equal(run(config=replace(CONFIG, **options), draw=draw), plain)
    assert not torch.equal(run(config=replace(CONFIG, churn=40), draw=draw), plain)


def test_churn_keeps_the_distribution():
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 128, 128, generator=rng, dtype=torch.float64)

    def fresh(i):
        g = torch.Generator().manual_seed(1 + i)
        return torch.randn(noise.shape, generator=g, dtype=torch.float64)

    x = run(noise=noise, config=replace(CONFIG, churn=10), num_steps=40, draw=fresh)
    mean = (WEIGHT * MEAN).sum()
    std = ((WEIGHT * (STD**2 + MEAN**2)).sum() - mean**2).sqrt()
    assert x.mean().item() == pytest.approx(mean.item(), abs=0.02)
    assert x.std().item() == pytest.approx(std.item(), rel=0.03)
    plain = run(noise=noise, num_steps=40)
    assert (x - plain).abs().mean() > 0.05  # the paths are others


def test_churn_is_capped_at_the_square_root_of_two():
    assert churn_gamma(replace(CONFIG, churn=1e9), 1.0, 18) == pytest.approx(math.sqrt(2) - 1)
    assert churn_gamma(replace(CONFIG, churn=1.8), 1.0, 18) == pytest.approx(0.1)


def test_the_samplers_levels_are_those_of_equation_5():
    sigmas = noise_levels(HeunConfig(), 18)
    assert len(sigmas) == 19 and sigmas[-1] == 0
    assert sigmas[0] == pytest.approx(80) and sigmas[-2] == pytest.approx(0.002)
    i, n = 5, 18
    high, low = 80 ** (1 / 7), 0.002 ** (1 / 7)
    assert sigmas[i] == pytest.approx((high + i / (n - 1) * (low - high)) ** 7)
    assert noise_levels(HeunConfig(), 1) == [80.0, 0.0]
    with pytest.raises(ValueError, match="sample.num_steps must be at least 1, got 0. Try 18"):
        noise_levels(HeunConfig(), 0)


def test_guidance_of_the_raw_output_is_guidance_of_the_denoiser():
    def by_label(x, level, y, omega=None, augment=None):
        return ideal(x, level, y) * (1 + y.view(-1, 1, 1, 1))

    def at(label):
        y = torch.tensor([label])
        return denoise(by_label, NOISE, 1.3, y, 0.5)

    guided = denoise(guide(by_label, 0.7, 1), NOISE, 1.3, torch.tensor([0]), 0.5)
    torch.testing.assert_close(guided, 1.7 * at(0) - 0.7 * at(1))


def test_the_scaling_is_fp32_around_a_network_in_bf16():
    """Only the raw output is rounded: by c_out of what bf16 rounds off, and no more."""
    seen = []

    def rounded(x, level, y, omega=None, augment=None):
        seen.append((x, level))
        return ideal(x, level, y).bfloat16()

    noise = NOISE.float()
    for sigma in (0.01, 1.0, 50.0):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = denoise(rounded, noise, sigma, Y, SIGMA_DATA)
        exact = denoise(ideal, noise.double(), sigma, Y, SIGMA_DATA)
        c_out = scaling(torch.tensor([sigma]), SIGMA_DATA).c_out.item()
        assert found.dtype == torch.float32
        assert (found - exact).abs().max() < 2**-7 * c_out + 1e-5
    assert all(x.dtype == level.dtype == torch.float32 for x, level in seen)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"sigma_min": 0},
            r"sample.heun.sigma_min must be above 0, got 0. Try --sample.heun.sigma-min 0.002",
        ),
        ({"rho": -1}, r"sample.heun.rho must be above 0, got -1"),
        ({"churn_noise": 0}, r"sample.heun.churn_noise must be above 0"),
        ({"sigma_max": 0.001}, r"sigma_max \(0.001\) must be above sample.heun.sigma_min"),
        (
            {"churn": -1},
            r"sample.heun.churn must be at least 0, got -1. Try --sample.heun.churn 0",
        ),
        ({"churn_from": 60}, r"churn_from \(60\) and .*churn_to \(50.0\).*Try 0.05 and 50"),
    ],
)
def test_wrong_numbers_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        HeunConfig(**options)
