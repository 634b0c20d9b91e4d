from dataclasses import dataclass

import pytest
import torch

from cbdm_scale.diffusion.edm import EDM
from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.sampling.guidance import (
    GuidanceInterval,
    Guided,
    at_level,
    guide,
    trained,
)
from cbdm_scale.sampling.options import SamplerConfig, check_trained, usual_sampler
from cbdm_scale.sampling.sampler import _solver


def net(x, level, y, omega=None, augment=None):
    """A network whose every argument shows in what it returns."""
    scale = level + 10 * y + (0 if omega is None else 100 * omega)
    if augment is not None:
        scale = scale + 1000 * augment.sum(dim=1)
    return x * scale.view(-1, 1, 1, 1)


STEPS = LinearSchedule(ScheduleConfig(num_steps=10))
X, LEVEL, Y = torch.randn(3, 1, 2, 2), torch.tensor([1, 5, 9]), torch.tensor([0, 1, 2])
NULL = torch.full_like(Y, 7)


def test_no_guidance_is_the_network_itself():
    assert guide(net, omega=0.0, null_label=7) is net


def test_guidance_is_the_papers_combination_of_two_predictions():
    guided = guide(net, omega=1.6, null_label=7)
    expected = (1 + 1.6) * net(X, LEVEL, Y) - 1.6 * net(X, LEVEL, NULL)
    torch.testing.assert_close(guided(X, LEVEL, Y), expected)


def test_guidance_of_an_unlabelled_image_changes_nothing():
    guided = guide(net, omega=1.6, null_label=7)
    torch.testing.assert_close(guided(X, LEVEL, NULL), net(X, LEVEL, NULL))


def test_omega_and_augment_reach_both_predictions():
    guided = guide(net, omega=0.5, null_label=7)
    omega, augment = torch.tensor([0.1, 0.2, 0.3]), torch.arange(27.0).view(3, 9)
    e, e_null = net(X, LEVEL, Y, omega, augment), net(X, LEVEL, NULL, omega, augment)
    torch.testing.assert_close(guided(X, LEVEL, Y, omega, augment), 1.5 * e - 0.5 * e_null)
    named = guided(X, LEVEL, Y, augment=augment, omega=omega)
    torch.testing.assert_close(named, 1.5 * e - 0.5 * e_null)


def test_guidance_costs_one_call():
    calls = []

    def counting(x, level, y, omega=None, augment=None):
        calls.append(len(x))
        return x

    guide(counting, omega=1.0, null_label=7)(X, LEVEL, Y)
    assert calls == [6]


def test_outside_the_interval_guidance_is_off_and_the_edges_are_inside():
    guided = guide(net, 1.6, 7, GuidanceInterval(STEPS, low=0.1, high=0.5))
    always = guide(net, 1.6, 7)
    out, plain, full = guided(X, LEVEL, Y), net(X, LEVEL, Y), always(X, LEVEL, Y)
    assert torch.equal(out[:2], full[:2])  # levels 1 and 5 of 10
    assert torch.equal(out[2], plain[2]) and not torch.equal(out[2], full[2])  # level 9


def test_outside_the_interval_half_of_the_work_is_saved():
    calls = []

    def counting(x, level, y, omega=None, augment=None):
        calls.append(len(x))
        return x

    guided = guide(counting, 1.0, 7, GuidanceInterval(STEPS, low=0.1, high=0.5))
    for level in (0, 1, 5, 6):
        at_level(guided, torch.tensor([level]))(X, torch.full_like(LEVEL, level), Y)
    assert calls == [3, 6, 6, 3]


@pytest.mark.parametrize("edm", [False, True])
def test_the_samplers_save_it_and_the_interval_is_what_it_is_for_each_image(edm):
    """They know their level on the host: the same images as by looking at every level."""
    process = EDM() if edm else STEPS
    config = usual_sampler("edm") if edm else SamplerConfig(num_steps=10)
    interval = GuidanceInterval(process, low=0.2, high=0.7)
    calls = []

    def counting(x, level, y, omega=None, augment=None):
        calls.append(len(x))
        return net(x, level, y, omega, augment) / 1e3

    @dataclass(frozen=True)
    class Looking(Guided):
        def at_level(self, level):
            return self

    solve = _solver(config, process, draw=None)
    guided = guide(counting, 1.6, 7, interval)
    found, saved = solve(guided, X, Y), list(calls)
    calls.clear()
    expected = solve(Looking(counting, 1.6, 7, interval), X, Y)
    assert torch.equal(found, expected) and set(calls) == {6}
    assert len(saved) == len(calls) and {3, 6} == set(saved)


def test_an_interval_of_all_levels_is_guidance_to_the_bit():
    whole, none = GuidanceInterval(STEPS), GuidanceInterval(STEPS, low=0.95, high=0.99)
    always = guide(net, 1.6, 7)
    assert torch.equal(guide(net, 1.6, 7, whole)(X, LEVEL, Y), always(X, LEVEL, Y))
    assert torch.equal(guide(net, 1.6, 7, none)(X, LEVEL, Y), net(X, LEVEL, Y))


def test_omega_and_augment_reach_both_predictions_inside_the_interval():
    guided = guide(net, 0.5, 7, GuidanceInterval(STEPS, low=0.2, high=1.0))
    omega, augment = torch.tensor([0.1, 0.2, 0.3]), torch.arange(27.0).view(3, 9)
    e, e_null = net(X, LEVEL, Y, omega, augment), net(X, LEVEL, NULL, omega, augment)
    expected = torch.cat([e[:1], (1.5 * e - 0.5 * e_null)[1:]])
    torch.testing.assert_close(guided(X, LEVEL, Y, omega, augment), expected)


# ----------------------------------------------------------------------------
# A strength an image.

OMEGA = torch.tensor([0.3, 0.0, 1.6])


@pytest.mark.parametrize("mode", ["cfg", "tcfg"])
def test_each_image_has_its_own_strength(mode):
    interval = GuidanceInterval(STEPS, low=0.1, high=0.5)
    for where in (None, interval):
        found = guide(net, OMEGA, 7, where, mode)(X, LEVEL, Y)
        for i, omega in enumerate(OMEGA.tolist()):
            here = slice(i, i + 1)
            alone = guide(net, omega, 7, where, mode)(X[here], LEVEL[here], Y[here])
            torch.testing.assert_close(found[here], alone)


@pytest.mark.parametrize("mode", ["cfg", "tcfg"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_strength_for_all_is_the_number_to_the_bit(mode, dtype):
    def half(*args):
        return net(*args).to(dtype)

    same = torch.full((3,), 0.8)
    found, number = (guide(half, omega, 7, mode=mode)(X, LEVEL, Y) for omega in (same, 0.8))
    assert torch.equal(found, number)


# ----------------------------------------------------------------------------
# One prediction: the network is told the strength.


def test_a_trained_network_is_told_the_strength_and_asked_once():
    calls = []

    def counting(x, level, y, omega=None, augment=None):
        calls.append(len(x))
        return net(x, level, y, omega, augment)

    augment = torch.arange(27.0).view(3, 9)
    out = trained(counting, 0.8, 7)(X, LEVEL, Y, augment=augment)
    assert torch.equal(out, net(X, LEVEL, Y, torch.full((3,), 0.8), augment))
    assert calls == [3]


def test_strength_zero_of_a_trained_network_is_the_network_itself():
    assert guide(net, 0.0, 7, mode="tcfg") is net


def test_a_trained_network_without_a_label_is_not_guided():
    y = torch.tensor([0, 7, 2])
    out = trained(net, 0.8, 7)(X, LEVEL, y)
    assert torch.equal(out, net(X, LEVEL, y, torch.tensor([0.8, 0, 0.8])))


def test_outside_the_interval_a_trained_network_is_told_zero():
    guided = trained(net, 0.8, 7, GuidanceInterval(STEPS, low=0.1, high=0.5))
    expected = net(X, LEVEL, Y, torch.tensor([0.8, 0.8, 0]))
    assert torch.equal(guided(X, LEVEL, Y), expected)
    whole = trained(net, 0.8, 7, GuidanceInterval(STEPS))
    assert torch.equal(whole(X, LEVEL, Y), trained(net, 0.8, 7)(X, LEVEL, Y))


def test_the_mode_chooses_and_two_predictions_are_the_default():
    everywhere = GuidanceInterval(STEPS)
    two, one = guide(net, 0.8, 7), trained(net, 0.8, 7)
    assert torch.equal(guide(net, 0.8, 7, everywhere)(X, LEVEL, Y), two(X, LEVEL, Y))
    assert torch.equal(guide(net, 0.8, 7, everywhere, "tcfg")(X, LEVEL, Y), one(X, LEVEL, Y))


def test_a_mode_or_strength_that_the_network_does_not_know_is_named():
    with pytest.raises(ValueError, match="guidance_mode must be cfg or tcfg, got 'both'"):
        EvalConfig(guidance_mode="both")
    with pytest.raises(ValueError, match=r"guidance_mode \(tcfg\) needs .*--loss.tcfg, or"):
        check_trained("guidance_mode", "tcfg", 0.5, 0.0)
    with pytest.raises(ValueError, match=r"up to 1 \(loss.omega_max\), got 1.5. Try 1, or cfg"):
        check_trained("guidance_mode", "tcfg", 1.5, 1.0)
    check_trained("guidance_mode", "tcfg", 1.0, 1.0)
    check_trained("guidance_mode", "cfg", 9.0, 0.0)


def test_an_interval_counts_in_shares_of_training_whatever_the_level_is():
    """DDPM is told t, EDM ln(sigma) / 4: the same quantiles have guidance."""
    quantiles = torch.tensor([0.05, 0.25, 0.45, 0.95], dtype=torch.float64)
    edm = EDM()
    level = (edm.sigma(quantiles).log() / 4).float()
    inside = [False, True, True, False]
    assert GuidanceInterval(edm, 0.1, 0.5).holds(level).tolist() == inside
    assert GuidanceInterval(STEPS, 0.1, 0.5).holds((10 * quantiles).long()).tolist() == inside
    x, y = torch.randn(4, 1, 2, 2), torch.tensor([0, 1, 2, 3])
    guided = guide(net, 0.7, 7, GuidanceInterval(edm, 0.1, 0.5))(x, level, y)
    whole = guide(net, 0.7, 7)(x, level, y)
    expected = torch.where(torch.tensor(inside).view(-1, 1, 1, 1), whole, net(x, level, y))
    torch.testing.assert_close(guided, expected)
