"""The sliced Wasserstein distance, against its definition and two Gaussians."""

import pytest
import torch
from feature_tools import normal, skewed
from scipy.stats import wasserstein_distance_nd

from cbdm_scale.metrics import sliced_wasserstein as module
from cbdm_scale.metrics.sliced_wasserstein import (
    SlicedTo,
    directions,
    quantile_steps,
    sliced_wasserstein,
)


def by_definition(x, y, num_projections):
    """Every image repeated until both sides have equally many, then sorted and subtracted."""
    x, y = x.repeat_interleave(len(y), 0).double(), y.repeat_interleave(len(x), 0).double()
    total = 0.0
    for u in directions(x.shape[1], num_projections).double():
        total += ((x @ u).sort().values - (y @ u).sort().values).square().mean()
    return float(3 * x.shape[1] * total / num_projections)


@pytest.mark.parametrize("n, m", [(40, 40), (40, 30), (7, 41), (2, 60)])
def test_it_is_the_definition_for_equal_and_unequal_numbers(n, m, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 300)  # in several blocks
    x, y = skewed(0, n, 6), skewed(1, m, 6) + 0.1
    assert sliced_wasserstein(x, y, 25) == pytest.approx(by_definition(x, y, 25), rel=1e-5)


def test_along_one_axis_it_is_the_wasserstein_distance_of_numbers():
    """In one dimension every direction is the same, but for its sign."""
    x, y = normal(0, 30, 1), normal(1, 12, 1) * 2 + 1
    i, j, mass = quantile_steps(30, 12)
    a, b = x.flatten().sort().values, y.flatten().sort().values
    first = float(((a[i] - b[j]).abs() * mass).sum())
    assert first == pytest.approx(wasserstein_distance_nd(x.numpy(), y.numpy()), rel=1e-5)
    second = float(((a[i] - b[j]).square() * mass).sum())
    assert sliced_wasserstein(x, y, 4) == pytest.approx(3 * second, rel=1e-5)


def test_the_coupling_moves_all_mass_and_no_more():
    i, j, mass = quantile_steps(6, 4)
    assert torch.zeros(6).double().index_add(0, i, mass).tolist() == pytest.approx([1 / 6] * 6)
    assert torch.zeros(4).double().index_add(0, j, mass).tolist() == pytest.approx([1 / 4] * 4)
    assert len(mass) == 8, "n + m - gcd(n, m)"


def test_a_shift_costs_three_times_its_square_and_a_scale_three_times_its_traces():
    x = normal(0, 2000, 8)
    shift = torch.zeros(8)
    shift[0] = 2.0
    assert sliced_wasserstein(x, x + shift, 4000) == pytest.approx(3 * 4, rel=0.06)
    around = x - x.mean(0)
    spread = float(around.var(0, correction=0).sum())
    assert sliced_wasserstein(around, 2 * around, 4000) == pytest.approx(3 * spread, rel=0.02)


def test_it_is_a_distance_seeded_and_symmetric():
    x, y = normal(0, 50, 5), normal(1, 40, 5)
    assert sliced_wasserstein(x, x) == 0
    assert sliced_wasserstein(x, x[torch.randperm(50)]) == 0, "the order of images is none"
    assert sliced_wasserstein(x, y) == pytest.approx(sliced_wasserstein(y, x), rel=1e-9)
    assert sliced_wasserstein(x, y) == sliced_wasserstein(x, y)
    assert sliced_wasserstein(x, y) != sliced_wasserstein(x, y, seed=1)
    assert directions(5, 10).norm(dim=1).tolist() == pytest.approx([1.0] * 10)


def test_it_sees_a_shape_that_moments_do_not():
    """A Gaussian and two points of its mean and variance: FID is 0 of these."""
    x = normal(0, 500, 1)
    x = (x - x.mean()) / x.std(correction=0)
    two = torch.tensor([[-1.0], [1.0]]).repeat(250, 1)
    assert sliced_wasserstein(x, two, 2) > 0.5


def test_few_images_bias_it_upward():
    real = normal(0, 2000, 4)
    to = SlicedTo(real, 200)
    means = [sum(to(normal(s, n, 4)) for s in range(1, 21)) / 20 for n in (10, 40, 160)]
    assert means[0] > 2 * means[1] > 4 * means[2] > 0


def test_what_does_not_fit_is_refused():
    x = normal(0, 10, 3)
    with pytest.raises(ValueError, match="at least 2 images on each side, got 1 generated"):
        sliced_wasserstein(x, x[:1])
    with pytest.raises(ValueError, match=r"must be \(M, 3\), got \(10, 2\)"):
        sliced_wasserstein(x, x[:, :2])
    with pytest.raises(ValueError, match="real features hold non-finite"):
        sliced_wasserstein(x / 0, x)
