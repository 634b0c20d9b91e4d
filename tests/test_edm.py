import math

import pytest
import torch

from cbdm_scale.diffusion.edm import (
    EDMConfig,
    add_noise,
    loss_weight,
    relative_step,
    relative_step_of_levels,
    sampling_sigmas,
    scaling,
    target,
    training_sigma,
)
from cbdm_scale.diffusion.schedule import LinearSchedule

CONFIG = EDMConfig()
SIGMA = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)


def test_the_scalings_are_those_of_table_1():
    c = scaling(SIGMA, 0.5)
    for i, s in enumerate(SIGMA.tolist()):
        assert c.c_skip[i].item() == pytest.approx(0.25 / (s * s + 0.25))
        assert c.c_out[i].item() == pytest.approx(s * 0.5 / math.sqrt(s * s + 0.25))
        assert c.c_in[i].item() == pytest.approx(1 / math.sqrt(s * s + 0.25))
        assert c.c_noise[i].item() == pytest.approx(math.log(s) / 4)


def test_input_and_target_have_unit_variance_at_every_level():
    rng = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(20_000, 1, 1, 1, generator=rng, dtype=torch.float64)
    eps = torch.randn(20_000, 1, 1, 1, generator=rng, dtype=torch.float64)
    for s in SIGMA:
        sigma = s.expand(len(x0))
        x, c = add_noise(x0, sigma, eps), scaling(sigma, 0.5)
        assert (c.c_in[0] * x).var().item() == pytest.approx(1, rel=0.03)
        assert target(x0, x, c).var().item() == pytest.approx(1, rel=0.03)


def test_the_weighted_error_of_the_denoiser_is_the_error_of_the_raw_output():
    rng = torch.Generator().manual_seed(0)
    x0, eps, raw = torch.randn(3, 5, 2, 4, 4, generator=rng, dtype=torch.float64)
    x, c = add_noise(x0, SIGMA, eps), scaling(SIGMA, 0.5)

    def column(v):
        return v.view(-1, 1, 1, 1)

    denoised = column(c.c_skip) * x + column(c.c_out) * raw
    theirs = loss_weight(SIGMA, 0.5) * (denoised - x0).square().flatten(1).mean(1)
    ours = (raw - target(x0, x, c)).square().flatten(1).mean(1)
    torch.testing.assert_close(ours, theirs)


def test_the_training_law_is_log_normal():
    normal = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    log = training_sigma(normal, CONFIG).log()
    assert log.mean().item() == pytest.approx(-1.2, abs=0.02)
    assert log.std().item() == pytest.approx(1.2, abs=0.02)


def test_the_relative_step_is_the_share_of_levels_below():
    normal = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    drawn = training_sigma(normal, CONFIG)
    for s in (0.05, 0.3, 1.0, 3.44):
        share = (drawn < s).double().mean().item()
        found = relative_step(torch.tensor([s]), CONFIG).item()
        assert found == pytest.approx(share, abs=0.01)
    # The page on the method: sigma 3.44 is quantile 0.98 here.
    assert relative_step(torch.tensor([3.44]), CONFIG).item() == pytest.approx(0.98, abs=0.005)


def test_the_relative_step_rises_from_0_to_1():
    q = relative_step(torch.logspace(-8, 8, 200, dtype=torch.float64), CONFIG)
    assert (q.diff() >= 0).all() and q[0] < 1e-9 and q[-1] > 1 - 1e-9


def test_at_the_levels_of_ddpm_the_relative_step_is_t_over_T_exactly():
    alpha_bar = LinearSchedule().alpha_bar
    levels = ((1 - alpha_bar) / alpha_bar).sqrt()
    t = torch.arange(1000)
    assert torch.equal(relative_step_of_levels(levels, levels), t.double() / 1000)
    # ... where sigma 3.44 is the middle
    assert relative_step_of_levels(torch.tensor([3.44]).double(), levels).item() == (
        pytest.approx(0.5, abs=0.005)
    )


def test_the_samplers_levels_are_those_of_equation_5():
    sigmas = sampling_sigmas(18, CONFIG)
    assert len(sigmas) == 19 and sigmas[-1] == 0
    assert sigmas[0] == pytest.approx(80) and sigmas[-2] == pytest.approx(0.002)
    i, n = 5, 18
    high, low = 80 ** (1 / 7), 0.002 ** (1 / 7)
    assert sigmas[i] == pytest.approx((high + i / (n - 1) * (low - high)) ** 7)
    assert sampling_sigmas(1, CONFIG) == [80.0, 0.0]
    with pytest.raises(ValueError, match="sample.num_steps must be at least 1, got 0. Try 18"):
        sampling_sigmas(0, CONFIG)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sigma_data": 0}, "edm.sigma_data must be above 0, got 0: 0.5 for images"),
        ({"p_std": -1}, "edm.p_std must be above 0"),
        ({"p_mean": math.nan}, "edm.p_mean must be finite, got nan. Try -1.2"),
        ({"sigma_max": 0.001}, r"edm.sigma_max \(0.001\) must be above edm.sigma_min"),
    ],
)
def test_wrong_numbers_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        EDMConfig(**options)
