import math
from statistics import NormalDist

import pytest
import torch

from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.edm import EDM, scaling
from cbdm_scale.diffusion.options import EDMConfig, NoiseConfig, ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule

SIGMA = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)


def column(v):
    return v.view(-1, 1, 1, 1)


def target(x0, x, c):
    """Equation 8, literally: what F should give."""
    return (x0 - column(c.c_skip).to(x0) * x) / column(c.c_out).to(x0)


def relative_step(sigma):
    return EDM().relative(sigma.log() / 4)


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
        x, c = x0 + column(sigma) * eps, scaling(sigma, 0.5)
        assert (c.c_in[0] * x).var().item() == pytest.approx(1, rel=0.03)
        assert target(x0, x, c).var().item() == pytest.approx(1, rel=0.03)


def test_the_weighted_error_of_the_denoiser_is_the_error_of_the_raw_output():
    rng = torch.Generator().manual_seed(0)
    x0, eps, raw = torch.randn(3, 5, 2, 4, 4, generator=rng, dtype=torch.float64)
    x, c = x0 + column(SIGMA) * eps, scaling(SIGMA, 0.5)
    denoised = column(c.c_skip) * x + column(c.c_out) * raw
    weight = (SIGMA.square() + 0.25) / (SIGMA * 0.5).square()  # lambda(sigma)
    theirs = weight * (denoised - x0).square().flatten(1).mean(1)
    ours = (raw - target(x0, x, c)).square().flatten(1).mean(1)
    torch.testing.assert_close(ours, theirs)


def drawn_sigma():
    u = torch.rand(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return EDM().sigma(EDM().step(u))


def test_the_training_law_is_log_normal():
    log = drawn_sigma().log()
    assert log.mean().item() == pytest.approx(-1.2, abs=0.02)
    assert log.std().item() == pytest.approx(1.2, abs=0.02)


def test_the_relative_step_is_the_share_of_levels_below():
    drawn = drawn_sigma()
    for s in (0.05, 0.3, 1.0, 3.44):
        share = (drawn < s).double().mean().item()
        assert relative_step(torch.tensor([s])).item() == pytest.approx(share, abs=0.01)
    # The page on the method: sigma 3.44 is quantile 0.98 here.
    assert relative_step(torch.tensor([3.44])).item() == pytest.approx(0.98, abs=0.005)


def test_the_relative_step_rises_from_0_to_1():
    q = relative_step(torch.logspace(-8, 8, 200, dtype=torch.float64))
    assert (q.diff() >= 0).all() and q[0] < 1e-9 and q[-1] > 1 - 1e-9


def test_at_the_levels_of_ddpm_the_relative_step_is_t_over_T_exactly():
    alpha_bar = LinearSchedule().alpha_bar
    levels = ((1 - alpha_bar) / alpha_bar).sqrt()
    below = torch.searchsorted(levels, levels, side="left").double() / 1000
    assert torch.equal(LinearSchedule().relative(torch.arange(1000)), below)
    # ... where sigma 3.44 is the middle
    assert (levels < 3.44).double().mean().item() == pytest.approx(0.5, abs=0.005)


def some_noise(n, dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    x0 = torch.rand(n, 2, 4, 4, generator=rng, dtype=torch.float64) * 2 - 1
    eps = torch.randn(n, 2, 4, 4, generator=rng, dtype=torch.float64)
    return x0.to(dtype), eps.to(dtype)


def test_the_process_is_its_equations_one_number_at_a_time():
    t = torch.tensor([1e-9, 0.1, 0.5, 0.98, 1 - 1e-9], dtype=torch.float64)
    x0, eps = some_noise(5)
    noisy = EDM().noisy(x0, t, eps)
    for i, u in enumerate(t.tolist()):
        s = math.exp(-1.2 + 1.2 * NormalDist().inv_cdf(u))
        skip, out = 0.25 / (s * s + 0.25), s * 0.5 / math.sqrt(s * s + 0.25)
        assert noisy.level[i].item() == pytest.approx(math.log(s) / 4, rel=1e-6)
        for a, b, x, wanted in zip(
            *(v[i].flatten().tolist() for v in (x0, eps, noisy.x, noisy.target)), strict=True
        ):
            assert x == pytest.approx((a + s * b) / math.sqrt(s * s + 0.25))
            assert wanted == pytest.approx((a - skip * (a + s * b)) / out, rel=1e-5, abs=1e-8)


def test_the_target_keeps_fp32_where_noise_is_small():
    """Taken as the difference that Equation 8 is, it would lose three digits there."""
    t, (x0, eps) = torch.full((3,), 1e-9, dtype=torch.float64), some_noise(3)
    exact = EDM().noisy(x0, t, eps).target
    found = EDM().noisy(x0.float(), t, eps.float()).target
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)
    sigma = EDM().sigma(t).float()
    x = x0.float() + column(sigma) * eps.float()
    literal = target(x0.float(), x, scaling(sigma, 0.5))
    assert (literal - exact).abs().max() > 100 * (found - exact).abs().max()


def test_a_step_is_the_share_of_training_with_less_noise():
    process, u = EDM(), torch.linspace(1e-6, 1 - 1e-6, 1001, dtype=torch.float64)
    t = process.step(u)
    assert torch.equal(t / process.num_steps, u) and (process.sigma(t).diff() > 0).all()
    x0, eps = some_noise(1001)
    found = process.relative(process.noisy(x0, t, eps).level)
    torch.testing.assert_close(found, u, rtol=0, atol=1e-9)
    torch.testing.assert_close(relative_step(process.sigma(t)), u)
    single = process.relative(process.noisy(x0.float(), t, eps.float()).level)
    assert single.dtype == torch.float64 and (single.diff() >= 0).all()
    torch.testing.assert_close(single, u, rtol=0, atol=1e-6)


def test_levels_outside_of_training_are_in_the_range_too():
    level = torch.tensor([1e-30, 0.002, 80.0, 1e30]).log() / 4
    found = EDM().relative(level)
    assert (found >= 0).all() and (found <= 1).all() and found[1] < 1e-4 and found[2] > 0.9999


def test_a_process_is_made_by_its_name():
    schedule = ScheduleConfig(num_steps=7)
    made = build_process(NoiseConfig(process="ddpm", schedule=schedule))
    assert isinstance(made, LinearSchedule) and made.num_steps == 7
    made = build_process(NoiseConfig(process="edm", edm=EDMConfig(p_mean=-0.4)))
    assert isinstance(made, EDM) and made.config.p_mean == -0.4
    assert made.sigma(torch.tensor([0.5])).item() == pytest.approx(math.exp(-0.4))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sigma_data": 0}, "edm.sigma_data must be above 0, got 0: 0.5 for images"),
        ({"p_std": -1}, "edm.p_std must be above 0"),
        ({"p_mean": math.nan}, "edm.p_mean must be finite, got nan. Try -1.2"),
    ],
)
def test_wrong_numbers_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        EDMConfig(**options)
