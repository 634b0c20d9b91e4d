import pytest
import torch
from feature_tools import normal

from cbdm_scale.metrics.fid import fid
from cbdm_scale.metrics.intervals import (
    bootstrap_weights,
    fid_interval,
    fidelity_interval,
    kid_interval,
)
from cbdm_scale.metrics.kid import kid


def fresh(trial, n, dim=3):
    return 1.3 * normal(1000 + trial, n, dim) + 0.3


def test_the_kid_interval_covers_what_other_images_give():
    real = normal(0, 300, 3)
    truth = kid(real, fresh(-1, 8000))
    found = [kid_interval(real, fresh(t, 150), draws=200) for t in range(100)]
    inside = sum(i.low <= truth <= i.high for i in found)
    assert 86 <= inside <= 100
    assert found[0].value == pytest.approx(kid(real, fresh(0, 150)), rel=1e-5)


def test_the_kid_interval_holds_zero_when_nothing_differs():
    found = [kid_interval(normal(0, 200, 3), normal(t, 200, 3)) for t in range(1, 41)]
    assert sum(i.low <= 0 <= i.high for i in found) >= 33


def test_the_fid_interval_covers_the_expected_fid_of_as_many_images():
    real = normal(0, 500, 3)
    many = torch.tensor([fid(real, fresh(t, 200)) for t in range(400)])
    found = [fid_interval(real, fresh(5000 + t, 200)) for t in range(100)]
    assert 88 <= sum(i.low <= many.mean() <= i.high for i in found) <= 99
    width = torch.tensor([i.high - i.low for i in found]).mean()
    assert width == pytest.approx(2 * 2.09 * many.std().item(), rel=0.15)


def test_the_fid_interval_of_a_class_covers_with_fewer_images_than_dimensions():
    """Ten groups of 50 images, as for a class on Inception features."""
    real = normal(0, 50, 120)
    many = torch.tensor([fid(real, fresh(t, 50, 120)) for t in range(200)])
    found = [fid_interval(real, fresh(5000 + t, 50, 120), 10) for t in range(100)]
    assert sum(i.low <= many.mean() <= i.high for i in found) >= 88
    assert torch.tensor([i.high - i.low for i in found]).mean() < 3 * 2.26 * many.std().item()


def test_a_bootstrap_would_bias_fid_upward_and_this_does_not():
    """The reason for leaving out groups: repeated images look like a narrower set."""
    real, fake = normal(0, 400, 40), normal(1, 100, 40)
    weights = bootstrap_weights(100, 20, seed=0)
    again = [fid(real, fake.repeat_interleave(w.long(), dim=0)) for w in weights.T]
    interval = fid_interval(real, fake)
    assert min(again) > interval.high > interval.value > interval.low


@pytest.mark.parametrize("dim", [140, 20])  # by factors, and by moments
def test_the_fid_interval_is_its_formula_with_few_and_with_many_images(dim):
    real, fake = normal(0, 300, dim), normal(1, 64, dim)
    found = fid_interval(real, fake, num_groups=4)
    group = torch.randperm(64, generator=torch.Generator().manual_seed(0)) % 4
    left = torch.tensor([fid(real, fake[group != g]) for g in range(4)])
    half = 3.182446 * (3 * left.var(correction=0)).sqrt().item()
    assert found.value == pytest.approx(fid(real, fake), rel=1e-9)
    assert found.high - found.value == pytest.approx(half, rel=1e-3)
    assert found.value - found.low == pytest.approx(half, rel=1e-3)


def test_the_fidelity_interval_knows_that_labels_are_chosen():
    """Class 0 always right, class 1 never: asked for again, the share is the same."""
    y = torch.arange(1000) % 2
    found = fidelity_interval(y == 0, y)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    mixed = fidelity_interval(
        torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.5, y
    )
    assert mixed.high - mixed.low == pytest.approx(2 * 1.96 * (0.25 / 1000) ** 0.5, rel=0.15)
    assert mixed.low < mixed.value < mixed.high


def test_twenty_hits_of_twenty_are_not_certainty():
    y = torch.zeros(20, dtype=torch.int64)
    all_hit, none = fidelity_interval(y == 0, y), fidelity_interval(y == 1, y)
    assert (all_hit.value, all_hit.high) == (1.0, 1.0)
    assert all_hit.low == pytest.approx(0.8389, abs=1e-4)  # 20 / (20 + 1.96^2)
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.8389, abs=1e-4))


def test_what_has_no_interval_is_refused():
    with pytest.raises(ValueError, match="got 20 groups of 30 images"):
        fid_interval(normal(0, 30, 2), normal(1, 30, 2))
    with pytest.raises(ValueError, match="at least one image"):
        fidelity_interval(torch.zeros(0).bool(), torch.zeros(0).long())


def test_resamplings_without_a_pair_of_images_do_not_count():
    """Of three images, one in nine resamplings holds one image three times."""
    found = kid_interval(normal(1, 50, 4), normal(2, 3, 4))
    assert found.low <= found.value <= found.high
    two = kid_interval(normal(1, 50, 4), normal(2, 2, 4))
    assert two.value == pytest.approx(kid(normal(1, 50, 4), normal(2, 2, 4)), rel=1e-5)
    assert not two.is_known, "one pair shows no spread"
