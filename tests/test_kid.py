import pytest
import torch
from feature_tools import normal, skewed
from torch_fidelity.metric_kid import kid_features_to_metric

from cbdm_scale.metrics import kid as module
from cbdm_scale.metrics.kid import kid, subset_kid, weighted_kid


def by_definition(x, y):
    """Binkowski et al., Section 3: all kernel values at once, diagonals left out."""
    x, y = x.double(), y.double()

    def k(a, b):
        return (a @ b.T / x.shape[1] + 1) ** 3

    within = [(k(s, s).sum() - k(s, s).trace()) / (len(s) * (len(s) - 1)) for s in (x, y)]
    return float(sum(within) - 2 * k(x, y).mean())


def test_kid_is_the_definition_over_many_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    x, y = skewed(0, 200, 10), skewed(1, 150, 10) + 0.1
    assert kid(x.double(), y.double()) == pytest.approx(by_definition(x, y), rel=1e-10)
    assert kid(x, y) == pytest.approx(by_definition(x, y), rel=1e-3)


def test_kid_is_torch_fidelitys():
    x, y = normal(0, 120, 8, torch.float64), normal(1, 120, 8, torch.float64) + 0.2
    known = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=120, verbose=False)
    assert kid(x, y) == pytest.approx(known["kernel_inception_distance_mean"], rel=1e-10)


def test_kid_is_not_biased_by_few_images():
    pairs = [(normal(2 * s, 20, 4), normal(2 * s + 1, 20, 4)) for s in range(300)]
    values = torch.tensor([kid(x, y) for x, y in pairs])
    assert values.mean().abs() < 3 * values.std() / 300**0.5
    assert (values < 0).any()


def test_a_repeated_image_makes_no_pair_with_itself():
    """Weights are repetitions, but for the pairs of an image with its own copies."""
    x, y = normal(0, 30, 4, torch.float64), normal(1, 3, 4, torch.float64)
    [value] = weighted_kid(x, y, torch.tensor([[2.0], [1.0], [0.0]])).tolist()
    k = (y @ y.T / 4 + 1) ** 3
    across = (2 * (x @ y[0] / 4 + 1) ** 3 + (x @ y[1] / 4 + 1) ** 3).mean() / 3
    full = (x @ x.T / 4 + 1) ** 3
    real = (full.sum() - full.trace()) / (30 * 29)
    assert value == pytest.approx(float(real + k[0, 1] - 2 * across), rel=1e-5)


def test_subsets_average_to_the_distance_of_all_pairs():
    x, y = normal(0, 400, 6), normal(1, 300, 6) + 0.3
    found = subset_kid(x, y, num_subsets=100, size=100)
    assert found.mean == pytest.approx(kid(x, y), abs=4 * found.std / 100**0.5)
    one, two = (subset_kid(x, y, num_subsets=n, size=100) for n in (1, 2))
    assert two.std == pytest.approx(abs(one.mean - two.mean), rel=1e-6)  # halves the gap
    assert found == subset_kid(x, y, num_subsets=100, size=100)
    assert found != subset_kid(x, y, num_subsets=100, size=100, seed=1)


def test_the_subset_of_all_images_is_torch_fidelitys_mean_and_its_spread_is_none():
    x, y = normal(0, 50, 6), normal(1, 50, 6)
    found = subset_kid(x, y, num_subsets=2, size=50)
    assert found.mean == pytest.approx(kid(x, y), abs=1e-6)
    assert found.std == pytest.approx(0, abs=1e-6)


def test_what_does_not_fit_is_refused():
    x = normal(0, 10, 3)
    with pytest.raises(ValueError, match="subsets of 1000 images cannot be drawn from 10"):
        subset_kid(x, x)
    with pytest.raises(ValueError, match="at least 2 images on each side, got 10 real and 1"):
        kid(x, x[:1])
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(10, 2\)"):
        kid(x, x[:, :2])
    with pytest.raises(ValueError, match="generated features hold non-finite"):
        kid(x, x / 0)
