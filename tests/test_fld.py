"""FLD, against its formula, and the order that its paper gives: real, noise, copies, modes."""

import math

import pytest
import torch
from feature_tools import normal
from torch.distributions import MultivariateNormal

from cbdm_scale.metrics import fld as module
from cbdm_scale.metrics.fld import (
    MIN_VARIANCE,
    LikelihoodOf,
    fit_variances,
    fld,
    log_likelihood,
    standard_of,
)


def two_modes(seed, n):
    """Around (1, ..., 1) and (-1, ..., -1), in turn."""
    side = 1.0 - 2 * (torch.arange(n) % 2)
    return side[:, None] + 0.4 * normal(seed, n, 6)


TRAIN, HELD_OUT, FRESH = two_modes(0, 150), two_modes(1, 200), two_modes(2, 100)


def density(x, centres, variances):
    """The mixture by torch's own Gaussians: (N,) log p."""
    means = torch.cat([centres, torch.zeros(1, 6)])
    spread = torch.cat([variances, torch.ones(1)])
    parts = [
        MultivariateNormal(m, torch.eye(6) * v).log_prob(x)
        for m, v in zip(means, spread, strict=True)
    ]
    return torch.stack(parts, 1).logsumexp(1) - math.log(len(means))


def objective(train, centres, variances):
    return float(density(train, centres, variances).mean())


def test_the_likelihood_is_that_of_the_mixture_and_of_the_rest_of_it():
    variances = torch.linspace(0.2, 2, 100)[torch.randperm(100)]
    mean, left_out = log_likelihood(HELD_OUT, FRESH, variances)
    assert mean == pytest.approx(objective(HELD_OUT, FRESH, variances), abs=1e-4)
    assert left_out == []
    mean, left_out = log_likelihood(HELD_OUT, FRESH, variances, 7)
    assert mean == pytest.approx(objective(HELD_OUT, FRESH, variances), abs=1e-4)
    rest = torch.arange(100) % 7 != 3
    expected = objective(HELD_OUT, FRESH[rest], variances[rest])
    assert len(left_out) == 7 and left_out[3] == pytest.approx(expected, abs=1e-4)


def test_no_step_lowers_the_likelihood_and_the_last_gains_nothing():
    values = [
        objective(TRAIN, FRESH, fit_variances(TRAIN, FRESH, steps)) for steps in range(1, 40, 4)
    ]
    assert all(b >= a - 1e-6 for a, b in zip(values, values[1:], strict=False))
    assert values[-1] - values[0] > 0.02
    variances = fit_variances(TRAIN, FRESH, 500)
    best = objective(TRAIN, FRESH, variances)
    for factor in (0.8, 1.25):
        assert objective(TRAIN, FRESH, variances * factor) < best


def test_a_copy_shrinks_to_the_least_variance():
    centres = torch.cat([TRAIN[:1], FRESH])
    assert float(fit_variances(TRAIN, centres)[0]) == pytest.approx(MIN_VARIANCE)


def test_training_images_that_no_generated_one_is_near_widen_no_gaussian():
    """The standard normal explains the other mode: else Gaussians would reach over to it."""
    one_mode = FRESH[::2]
    assert float(fit_variances(TRAIN, one_mode).max()) < 1
    nearest = torch.cdist(TRAIN[1::2], one_mode).min() ** 2 / 6
    assert nearest > 1, "none is near"


def test_it_is_the_formula():
    half = LikelihoodOf(TRAIN, HELD_OUT)
    value, left_out = half(FRESH)
    assert left_out == []
    standard = standard_of(HELD_OUT)
    train, test, made = (standard(x) for x in (TRAIN, HELD_OUT, FRESH))
    mean = density(test, made, fit_variances(train, made)).mean()
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    a, b = test[rows[:100]], test[rows[100:]]
    real = [density(x, y, fit_variances(train, y)).mean() for x, y in ((a, b), (b, a))]
    assert value == pytest.approx(float(100 * ((real[0] + real[1]) / 2 - mean) / 6), abs=0.01)


def test_fresh_images_score_0_and_everything_wrong_scores_more():
    to = LikelihoodOf(TRAIN, HELD_OUT)
    fresh = [to(two_modes(s, 100))[0] for s in range(10, 30)]
    assert abs(sum(fresh) / 20) < 3
    wrong = {
        "noise": 2 * normal(3, 100, 6),
        "one mode": two_modes(3, 200)[::2],
        "all one image": two_modes(3, 1).expand(100, -1),
        "copies": TRAIN[:100],
    }
    scores = {name: to(images)[0] for name, images in wrong.items()}
    assert min(scores.values()) > max(fresh) + 10, scores
    assert scores["copies"] > 50, "FID would call these the best"
    nothing = to(torch.full((100, 6), 50.0))[0]
    assert max(scores.values()) < nothing + 10, "it has an upper end"


def test_half_copies_lie_between_none_and_all():
    to = LikelihoodOf(TRAIN, HELD_OUT)
    none, some, every = (to(torch.cat([TRAIN[:n], FRESH[: 100 - n]]))[0] for n in (0, 50, 100))
    assert none < some < every


def test_fewer_generated_images_are_compared_with_as_few_real_ones():
    to = LikelihoodOf(TRAIN, HELD_OUT)
    means = {n: sum(to(two_modes(s, n))[0] for s in range(40, 60)) / 20 for n in (10, 30, 100)}
    assert all(abs(mean) < 4 for mean in means.values()), means
    assert to.constant(10) < to.constant(30) < to.constant(100), "more Gaussians explain more"


def test_left_out_groups_are_fld_without_these_images():
    to = LikelihoodOf(TRAIN, HELD_OUT)
    value, left_out = to(FRESH, 5)
    assert len(left_out) == 5
    assert sum(left_out) / 5 > value, "fewer Gaussians explain less"
    assert len(to(FRESH[:3], 10)[1]) == 3, "never an empty group"


def test_units_of_features_do_not_matter_and_a_constant_one_is_no_division_by_0():
    scale, shift = torch.logspace(-3, 3, 6), 5
    other = [x * scale + shift for x in (TRAIN, HELD_OUT, FRESH)]
    assert fld(*other) == pytest.approx(fld(TRAIN, HELD_OUT, FRESH), abs=0.05)
    flat = [torch.cat([x, torch.ones(len(x), 1)], 1) for x in (TRAIN, HELD_OUT, FRESH)]
    assert math.isfinite(fld(*flat))


def test_of_many_images_random_ones_are_taken(monkeypatch):
    monkeypatch.setattr(module, "MOST", 60)
    to = LikelihoodOf(TRAIN, HELD_OUT)
    assert (len(to.train), len(to.held_out), to.most) == (60, 60, 30)
    assert to(FRESH)[0] == to(FRESH)[0]


def test_one_training_image_is_enough_and_what_is_too_few_is_refused():
    assert math.isfinite(fld(TRAIN[:1], HELD_OUT, FRESH))
    with pytest.raises(ValueError, match="at least 10 held-out images, got 9"):
        fld(TRAIN, HELD_OUT[:9], FRESH)
    with pytest.raises(ValueError, match="at least 1 training images, got 0"):
        fld(TRAIN[:0], HELD_OUT, FRESH)
    with pytest.raises(ValueError, match="at least 2 generated images, got 1"):
        fld(TRAIN, HELD_OUT, FRESH[:1])
    with pytest.raises(ValueError, match="generated features hold non-finite"):
        fld(TRAIN, HELD_OUT, FRESH / 0)
