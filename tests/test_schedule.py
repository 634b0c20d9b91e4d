"""The noise process of DDPM: its constants, its marginals, its bounds."""

import math

import pytest
import torch

from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule, expand_as


def test_the_paper_s_schedule_rises_linearly_over_1000_steps():
    schedule = LinearSchedule()
    assert schedule.num_steps == len(schedule.beta) == len(schedule.alpha_bar) == 1000
    assert schedule.beta[0].item() == pytest.approx(1e-4, rel=1e-12)
    assert schedule.beta[-1].item() == pytest.approx(0.02, rel=1e-12)
    torch.testing.assert_close(schedule.beta.diff(), torch.full((999,), 0.0199 / 999).double())


@pytest.mark.parametrize("t", [0, 1, 17, 999])
def test_alpha_bar_is_the_product_of_what_is_kept_up_to_and_with_t(t):
    kept = math.prod(1 - (1e-4 + 0.0199 * i / 999) for i in range(t + 1))
    assert LinearSchedule().alpha_bar[t].item() == pytest.approx(kept, rel=1e-9)


def test_the_last_step_is_almost_pure_noise():
    assert 0 < LinearSchedule().alpha_bar[-1] < 1e-4


def test_noise_is_added_by_the_formula_image_by_image():
    schedule = LinearSchedule()
    x0, eps = torch.randn(2, 3, 3, 4, 4)
    t = torch.tensor([0, 500, 999])
    x_t = schedule.add_noise(x0, t, eps)
    assert x_t.dtype == torch.float32
    for i in range(3):
        a = schedule.alpha_bar[t[i]].item()
        expected = math.sqrt(a) * x0[i] + math.sqrt(1 - a) * eps[i]
        torch.testing.assert_close(x_t[i], expected)


@pytest.mark.parametrize("t", [0, 250, 999])
def test_forward_process_keeps_unit_variance(t):
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 64, 3, 16, 16, generator=generator)
    x_t = LinearSchedule().add_noise(x0, torch.full((64,), t), eps)
    assert x_t.std().item() == pytest.approx(1, abs=0.02)


def test_noising_step_by_step_is_noising_at_once():
    """Variances of x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) z, from a known x0."""
    schedule = LinearSchedule(ScheduleConfig(num_steps=10, beta_1=0.01, beta_T=0.5))
    signal, variance = 1.0, 0.0
    for beta, alpha_bar in zip(
        schedule.beta.tolist(), schedule.alpha_bar.tolist(), strict=True
    ):
        signal, variance = signal * math.sqrt(1 - beta), (1 - beta) * variance + beta
        assert signal**2 == pytest.approx(alpha_bar)
        assert variance == pytest.approx(1 - alpha_bar)


def test_the_schedule_moves_with_its_module_and_has_nothing_to_train():
    schedule = LinearSchedule()
    assert set(dict(schedule.named_buffers())) == {"beta", "alpha_bar"}
    assert not list(schedule.parameters())
    assert LinearSchedule(ScheduleConfig(num_steps=1)).alpha_bar.tolist() == [1 - 1e-4]


def test_expand_as_adds_trailing_axes_and_takes_the_type():
    v = expand_as(torch.tensor([1.0, 2.0], dtype=torch.float64), torch.zeros(2, 3, 4, 4))
    assert v.shape == (2, 1, 1, 1)
    assert v.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "diffusion.num_steps must be from 1 to 1,000,000, got 0. Try 1000"),
        ({"beta_1": 0.0}, r"diffusion.beta_1 \(0.0\) and diffusion.beta_T \(0.02\)"),
        ({"beta_1": 0.03}, r"0 < beta_1 <= beta_T < 1. Try 1e-4 and 0.02"),
        ({"beta_T": 1.0}, r"diffusion.beta_T \(1.0\)"),
    ],
)
def test_wrong_schedules_name_option_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**options)
