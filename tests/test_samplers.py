"""For Gaussian data the ideal denoiser, and so the exact sample, is known in closed form."""

import pytest
import torch

from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.ddim import ddim
from cbdm_scale.sampling.ddpm import ancestral
from cbdm_scale.sampling.dpm import dpm_solver
from cbdm_scale.sampling.steps import log_snr_subsequence, subsequence

MU, S = 0.3, 0.5
SCHEDULE = LinearSchedule()
LONG = LinearSchedule(ScheduleConfig(num_steps=1001))  # 1,000 gaps: even sub-sequences
SHORT = LinearSchedule(ScheduleConfig(num_steps=20, beta_1=0.01, beta_T=0.4))


def ideal(schedule):
    """E[eps | x_t] for x_0 ~ N(MU, S^2)."""

    def net(x, t, y, omega=None, augment=None):
        ab = schedule.alpha_bar[t].view(-1, 1, 1, 1)
        return (1 - ab).sqrt() * (x - ab.sqrt() * MU) / (ab * S**2 + 1 - ab)

    return net


def wild(x, t, y, omega=None, augment=None):
    """Some network whose predicted x_0 often leaves [-1, 1]."""
    return torch.sin(3 * x) + 0.1 * t.view(-1, 1, 1, 1) - y.view(-1, 1, 1, 1)


def normal(seed, n=4, side=8):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, side, side, dtype=torch.float64, generator=rng)


def labels(x):
    return torch.zeros(len(x), dtype=torch.int64)


def ddim_error(num_steps):
    noise, ab = normal(0), LONG.alpha_bar[-1]
    standardised = (noise - ab.sqrt() * MU) / (ab * S**2 + 1 - ab).sqrt()
    exact = MU + S * standardised  # the flow keeps the standardised value
    x = ddim(ideal(LONG), noise, labels(noise), schedule=LONG, num_steps=num_steps, clip=False)
    return (x - exact).abs().max().item()


def transcribed(net, x, y, schedule, variance, clip, z):
    """Ho et al., Equations 6, 7 and 15, one number at a time, beta_t from the schedule."""
    for i, t in enumerate(reversed(range(schedule.num_steps))):
        beta, ab = schedule.beta[t], schedule.alpha_bar[t]
        ab_prev = schedule.alpha_bar[t - 1] if t else torch.tensor(1.0, dtype=torch.float64)
        e = net(x, torch.full((len(x),), t), y)
        x0 = (x - torch.sqrt(1 - ab) * e) / torch.sqrt(ab)
        if clip == "before":
            x0 = torch.clamp(x0, -1, 1)
        mean = torch.sqrt(ab_prev) * beta / (1 - ab) * x0
        mean = mean + torch.sqrt(1 - beta) * (1 - ab_prev) / (1 - ab) * x
        if clip == "after":
            x0 = torch.clamp(x0, -1, 1)
        small = beta * (1 - ab_prev) / (1 - ab)
        var = {"fixed_large": beta, "fixed_small": small}[variance]
        x = mean + torch.sqrt(var) * z[i] if t else mean
    return x


def test_ddim_is_accurate():
    assert ddim_error(1001) < 0.005


def test_ddim_is_first_order():
    assert ddim_error(101) / ddim_error(201) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("variance", ["fixed_large", "fixed_small"])
@pytest.mark.parametrize("clip", ["before", "never"])
def test_ancestral_is_the_transcription(variance, clip):
    noise, z, y = normal(0), [normal(i + 1) for i in range(20)], torch.tensor([0, 1, 0, 1])
    options = {"variance": variance, "clip": clip == "before", "draw": z.__getitem__}
    x = ancestral(wild, noise, y, schedule=SHORT, **options)
    naive = transcribed(wild, noise, y, SHORT, variance, clip, z)
    torch.testing.assert_close(x, naive, rtol=1e-9, atol=1e-9)


def test_clipping_after_the_mean_would_do_nothing_and_before_it_matters():
    noise, z, y = normal(0), [normal(i + 1) for i in range(20)], torch.tensor([0, 1, 0, 1])
    x = ancestral(wild, noise, y, schedule=SHORT, draw=z.__getitem__)
    after = transcribed(wild, noise, y, SHORT, "fixed_large", "after", z)
    assert x.abs().max() <= 1
    assert after.abs().max() > 1.1
    assert (x - after.clamp(-1, 1)).abs().max() > 0.1


def test_fixed_large_variance_is_beta():
    noise = normal(0)

    def after_noise_at(step, size):
        def draw(i):
            return torch.full_like(noise, size if i == step else 0.0)

        zero = torch.zeros_like
        return ancestral(
            lambda x, t, y: zero(x), noise, labels(noise), schedule=SHORT, clip=False, draw=draw
        )

    for step in (0, 7, 18):
        t = SHORT.num_steps - 1 - step
        moved = after_noise_at(step, 1.0) - after_noise_at(step, 0.0)
        to_the_end = 1 / SHORT.alpha_bar[t - 1].sqrt()  # with e = 0 only the scale changes
        expected = (SHORT.beta[t].sqrt() * to_the_end).expand_as(moved)
        torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("variance", ["fixed_large", "fixed_small"])
def test_ancestral_draws_the_data_distribution(variance):
    torch.manual_seed(0)
    noise = normal(1, n=32, side=32)
    x = ancestral(
        ideal(SCHEDULE), noise, labels(noise), schedule=SCHEDULE, variance=variance, clip=False
    )
    count = x.numel()
    assert x.mean().item() == pytest.approx(MU, abs=4 * S / count**0.5)
    assert x.std().item() == pytest.approx(S, rel=4 / (2 * count) ** 0.5 + 0.01)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("num_steps", [20, 7])
def test_ddim_with_eta_one_is_ancestral_with_the_small_variance(clip, num_steps):
    noise, z, y = normal(0), [normal(i + 1) for i in range(20)], torch.tensor([0, 1, 0, 1])
    options = {
        "schedule": SHORT, "num_steps": num_steps, "clip": clip, "draw": z.__getitem__
    }  # fmt: skip
    a = ancestral(wild, noise, y, variance="fixed_small", **options)
    b = ddim(wild, noise, y, eta=1.0, **options)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_is_the_transcription(eta):
    """Song et al., Equations 12 and 16."""
    x, z, y = normal(0), [normal(i + 1) for i in range(20)], torch.tensor([0, 1, 0, 1])
    sample = ddim(
        wild, x, y, schedule=SHORT, num_steps=20, eta=eta, clip=False, draw=z.__getitem__
    )
    for i, t in enumerate(reversed(range(20))):
        ab = SHORT.alpha_bar[t]
        ab_prev = SHORT.alpha_bar[t - 1] if t else torch.tensor(1.0, dtype=torch.float64)
        e = wild(x, torch.full((4,), t), y)
        sigma = eta * torch.sqrt((1 - ab_prev) / (1 - ab)) * torch.sqrt(1 - ab / ab_prev)
        x0 = (x - torch.sqrt(1 - ab) * e) / torch.sqrt(ab)
        x = torch.sqrt(ab_prev) * x0 + torch.sqrt(1 - ab_prev - sigma**2) * e + sigma * z[i]
    torch.testing.assert_close(sample, x, rtol=1e-9, atol=1e-9)


def test_a_half_precision_prediction_is_rounded_only_by_the_network():
    def half(x, t, y, omega=None, augment=None):
        return wild(x, t, y).to(torch.bfloat16)

    def widened(x, t, y, omega=None, augment=None):
        return half(x, t, y).to(x.dtype)

    noise = normal(0)
    a, b = (
        ddim(net, noise, labels(noise), schedule=SHORT, num_steps=5) for net in (half, widened)
    )
    assert torch.equal(a, b)


def test_ddim_without_eta_draws_nothing():
    def draw(i):
        raise AssertionError(f"drew noise for step {i}")

    noise = normal(0)
    ddim(wild, noise, labels(noise), schedule=SHORT, num_steps=5, draw=draw)


def test_all_but_the_last_step_draw_once_in_order():
    noise, drawn = normal(0), []

    def draw(i):
        drawn.append(i)
        return noise

    ancestral(wild, noise, labels(noise), schedule=SHORT, num_steps=5, draw=draw)
    ddim(wild, noise, labels(noise), schedule=SHORT, num_steps=5, eta=0.5, draw=draw)
    assert drawn == [0, 1, 2, 3] * 2


def test_the_network_sees_int64_steps_and_the_noise_is_left_alone():
    seen, noise = [], normal(0)
    before = noise.clone()

    def net(x, t, y, omega=None, augment=None):
        assert t.dtype == torch.int64 and t.shape == (len(x),)
        seen.append(t[0].item())
        return x.to(torch.bfloat16)

    x = ddim(net, noise, labels(noise), schedule=SHORT, num_steps=4)
    assert seen == [19, 13, 6, 0]
    assert x.dtype == noise.dtype and torch.equal(noise, before)


def test_subsequences_are_even_and_hold_both_ends():
    assert subsequence(1000, 1000) == list(reversed(range(1000)))
    assert subsequence(1000, 1) == [999]
    for num_steps in (2, 3, 10, 100, 250, 999):
        steps = subsequence(1000, num_steps)
        gaps = {a - b for a, b in zip(steps[:-1], steps[1:], strict=True)}
        assert len(steps) == num_steps and steps[0] == 999 and steps[-1] == 0
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("schedule", [SCHEDULE, SHORT, LONG])
def test_log_snr_steps_are_distinct_even_where_levels_allow_and_hold_both_ends(schedule):
    last = schedule.num_steps - 1
    for num_steps in (2, 7, 20):
        steps = log_snr_subsequence(schedule.alpha_bar, num_steps)
        assert len(steps) == num_steps and steps[0] == last and steps[-1] == 0
        assert all(a > b for a, b in zip(steps[:-1], steps[1:], strict=True))
    assert log_snr_subsequence(schedule.alpha_bar, 1) == [last]
    every = log_snr_subsequence(schedule.alpha_bar, schedule.num_steps)
    assert every == list(reversed(range(schedule.num_steps)))
    ab = schedule.alpha_bar[log_snr_subsequence(schedule.alpha_bar, 7)]
    gaps = torch.log(ab / (1 - ab)).diff()
    assert gaps.max() / gaps.min() < (1.5 if schedule is not SHORT else 3)


@pytest.mark.parametrize("clip", [True, False])
def test_dpm_solver_is_the_transcription(clip):
    """Lu et al., Algorithm 2, one number at a time; the last step goes to sigma = 0."""
    noise, y = normal(0), torch.tensor([0, 1, 0, 1])
    sample = dpm_solver(
        wild, noise, y, schedule=SHORT, num_steps=7, clip=clip, spacing="uniform"
    )
    x, before = noise, None
    steps = subsequence(20, 7)
    lam = {
        t: torch.log(SHORT.alpha_bar[t].sqrt() / (1 - SHORT.alpha_bar[t]).sqrt()) for t in steps
    }
    for i, t in enumerate(steps):
        alpha, sigma = SHORT.alpha_bar[t].sqrt(), (1 - SHORT.alpha_bar[t]).sqrt()
        x0 = (x - sigma * wild(x, torch.full((4,), t), y)) / alpha
        x0 = x0.clamp(-1, 1) if clip else x0
        if i == len(steps) - 1:
            break
        t_next = steps[i + 1]
        h = lam[t_next] - lam[t]
        d = x0
        if before is not None:
            r = (lam[t] - lam[steps[i - 1]]) / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * before
        alpha_next = SHORT.alpha_bar[t_next].sqrt()
        sigma_next = (1 - SHORT.alpha_bar[t_next]).sqrt()
        x = sigma_next / sigma * x - alpha_next * (torch.exp(-h) - 1) * d
        before = x0
    torch.testing.assert_close(sample, x0, rtol=1e-9, atol=1e-9)


def test_one_and_two_steps_of_dpm_solver_are_ddims():
    noise = normal(0)
    for num_steps in (1, 2):
        options = {"schedule": SHORT, "num_steps": num_steps, "spacing": "uniform"}
        a, b = (
            sampler(wild, noise, labels(noise), **options) for sampler in (ddim, dpm_solver)
        )
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [ancestral, ddim, dpm_solver])
@pytest.mark.parametrize("num_steps", [0, 21])
def test_a_number_of_steps_that_cannot_be_taken_is_named(sampler, num_steps):
    noise = normal(0)
    with pytest.raises(ValueError, match=rf"sample.num_steps \({num_steps}\).*1 and .*\(20\)"):
        sampler(wild, noise, labels(noise), schedule=SHORT, num_steps=num_steps)
