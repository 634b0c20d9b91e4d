"""Averages with power-function profiles: their widths, and one of another width from them."""

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn
from training_tools import TinyNet

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.averaged_weights import average_of_width, keep_averages
from cbdm_scale.training.power_ema import (
    WIDTHS,
    PowerEMA,
    Profile,
    combination,
    gamma_of,
    start_averages,
)

BATCH = 10


def walk(net: nn.Module, steps: int, every: int, averages, keep):
    """A random walk of the weights, the same for every call; ``keep`` after each ``every``."""
    rng = torch.Generator().manual_seed(0)
    for step in range(1, steps + 1):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn(p.shape, generator=rng) * 0.1)
        for average in averages:
            average.running.take(net, 1 - average.decay(step * BATCH, BATCH))
        if step % every == 0:
            keep(step * BATCH)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_width_is_the_relative_standard_deviation_of_the_profile(width):
    gamma = gamma_of(width)
    tau = (np.arange(1_000_000) + 0.5) / 1_000_000  # in units of the time
    weight = (gamma + 1) * tau**gamma / 1_000_000
    mean = (weight * tau).sum()
    assert weight.sum() == pytest.approx(1, abs=1e-5)
    assert np.sqrt((weight * (tau - mean) ** 2).sum()) == pytest.approx(width, rel=1e-4)


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.1, 6.94)])
def test_the_exponents_are_those_of_the_paper(width, gamma):
    assert gamma_of(width) == pytest.approx(gamma, abs=0.005)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.29, 1.0])
def test_a_width_without_a_profile_is_refused(width):
    with pytest.raises(ValueError, match=r"at most 0\.28, got"):
        gamma_of(width)


def test_the_running_average_weighs_each_step_by_its_share_of_the_profile():
    net = nn.Linear(1, 1, bias=False)
    average = PowerEMA(net, 0.1)
    values = [3.0, -1.0, 4.0, 1.0, -5.0]
    for step, value in enumerate(values, start=1):
        nn.init.constant_(net.weight, value)
        average.running.take(net, 1 - average.decay(step * BATCH, BATCH))
    edges = (np.arange(6) / 5) ** (average.gamma + 1)
    assert average.averages["weight"].item() == pytest.approx(
        float(np.diff(edges) @ values), rel=1e-5
    )


def test_the_first_step_leaves_nothing_of_the_random_start():
    net = nn.Linear(1, 1, bias=False)
    average = PowerEMA(net, 0.05)
    nn.init.constant_(net.weight, 7.0)
    average.running.take(net, 1 - average.decay(BATCH, BATCH))
    assert average.averages["weight"].item() == 7.0


def test_overlaps_are_the_integrals_of_the_products():
    a, b = Profile(0.05, 600), Profile(0.12, 1000)
    tau = np.arange(600_000) / 1000 + 0.0005

    def values(p):
        gamma = gamma_of(p.width)
        return (gamma + 1) * tau**gamma / float(p.time) ** (gamma + 1)

    expected = (values(a) * values(b)).sum() / 1000
    assert a.overlap(b) == pytest.approx(expected, rel=1e-3)
    assert b.overlap(a) == a.overlap(b)


def test_a_kept_profile_is_found_as_itself():
    kept = [Profile(w, t) for t in (500, 1000) for w in WIDTHS]
    factors = combination(kept, kept[3])
    assert np.allclose(factors, [0, 0, 0, 1], atol=1e-6)


@pytest.mark.parametrize("width", [0.04, 0.07, 0.15, 0.25])
def test_an_average_of_another_width_is_found_from_the_kept_ones(tmp_path, width):
    run, net = Storage(str(tmp_path)), TinyNet()
    averages = start_averages(net, wanted=True)
    wanted = PowerEMA(net, width)
    walk(
        net,
        400,
        20,
        (*averages, wanted),
        lambda images: keep_averages(run, averages, images),
    )
    found = average_of_width(run, width, 400 * BATCH)
    for name, value in wanted.averages.items():
        apart = (found[name] - value).norm() / (averages[0].averages[name] - value).norm()
        assert apart < 0.05, name  # float16 and 20 kept pairs


def test_more_kept_averages_come_nearer():
    wanted = Profile(0.15, 1000)

    def missing(times):
        kept = [Profile(w, t) for t in times for w in WIDTHS]
        factors = combination(kept, wanted)
        gram = np.array([[a.overlap(b) for b in kept] for a in kept])
        aim = np.array([a.overlap(wanted) for a in kept])
        return wanted.overlap(wanted) - 2 * factors @ aim + factors @ gram @ factors

    few, many = missing([500, 1000]), missing(range(100, 1001, 100))
    assert 0 <= many < few / 5


def test_it_is_told_which_averages_there_are(tmp_path):
    run, net = Storage(str(tmp_path)), TinyNet()
    averages = start_averages(net, wanted=True)
    with pytest.raises(ValueError, match=r"kept no averages after 10 images .*none"):
        average_of_width(run, 0.1, 10)
    walk(net, 4, 2, averages, lambda images: keep_averages(run, averages, images))
    assert RunDir(run).kept_averages() == [20, 40]
    with pytest.raises(ValueError, match=r"after 30 images \(the last: 20, 40\)"):
        average_of_width(run, 0.1, 30)


def test_a_damaged_file_is_named(tmp_path):
    run, net = Storage(str(tmp_path)), TinyNet()
    averages = start_averages(net, wanted=True)
    walk(net, 2, 2, averages, lambda images: keep_averages(run, averages, images))
    other = {name: t + 1 for name, t in averages[0].averages.items()}
    run.write_bytes("posthoc/000000000020.safetensors", save(other))
    with pytest.raises(ValueError, match=r"000000000020\.safetensors is damaged"):
        average_of_width(run, 0.1, 20)
