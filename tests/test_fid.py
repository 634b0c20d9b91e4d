import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from cbdm_scale.metrics.fid import FrechetTo, Moments, fid, frechet_distance, moments_of


def moments(features):
    result = Moments(features.shape[1])
    result.add(features)
    return result


def normal(seed, n, dim):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, dtype=torch.float64, generator=rng)


def exactly(mean, deviations):
    """Features whose mean and unbiased covariance diag(deviations^2) are exact."""
    n = 2 * len(deviations)
    axes = torch.diag(torch.tensor(deviations, dtype=torch.float64) * ((n - 1) / 2) ** 0.5)
    return torch.cat([axes, -axes]) + torch.tensor(mean, dtype=torch.float64)


def by_sqrtm(a, b):
    """The definition, by the matrix square root of a product that is not symmetric."""
    mu_a, mu_b = a.mean(0).numpy(), b.mean(0).numpy()
    cov_a, cov_b = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return float(((mu_a - mu_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root).real)


def test_two_gaussians_have_the_distance_of_the_formula():
    a, b = exactly([0, 1, 2], [1, 2, 3]), exactly([1, 1, 0], [2, 2, 0.5])
    means, deviations = 1 + 0 + 4, (2 - 1) ** 2 + 0 + (3 - 0.5) ** 2
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(means + deviations)


def test_sampled_gaussians_come_near_the_formula():
    a, b = normal(0, 20_000, 4), 1 + 2 * normal(1, 20_000, 4)
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(4 + 4, rel=0.05)


def test_the_distance_is_that_of_scipys_matrix_root():
    a = normal(0, 200, 12) @ normal(1, 12, 12)
    b = normal(2, 150, 12) @ normal(3, 12, 12) + 0.3
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(by_sqrtm(a, b), rel=1e-8)


def test_fewer_images_than_dimensions_are_no_trouble():
    a, b = normal(0, 5, 20), normal(1, 8, 20)
    # tr (A B)^(1/2) is the sum of the singular values of the centred feature products
    xa, xb = (a - a.mean(0)) / 4**0.5, (b - b.mean(0)) / 7**0.5
    traces = xa.square().sum() + xb.square().sum() - 2 * torch.linalg.svdvals(xa @ xb.T).sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + traces
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected.item(), rel=1e-6)


def test_the_distance_is_torch_fidelitys():
    a, b = normal(0, 300, 16) @ normal(1, 16, 16), normal(2, 200, 16) + 0.3
    sides = [fid_features_to_statistics(x) for x in (a, b)]
    known = fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]
    assert fid(a, b) == pytest.approx(known, rel=1e-9)


@pytest.mark.parametrize("num_real", [5, 40])
@pytest.mark.parametrize("num_fake", [8, 50])
def test_few_and_many_images_on_either_side_give_one_distance(num_real, num_fake):
    """20 dimensions: by singular values, by roots of covariances, and by one of each."""
    a, b = normal(0, num_real, 20), 0.5 * normal(1, num_fake, 20) + 0.2
    expected = frechet_distance(moments(a), moments(b))
    assert fid(a, b) == pytest.approx(expected, rel=1e-6)
    assert fid(b, a) == pytest.approx(expected, rel=1e-6)
    assert FrechetTo(a).to_moments(moments(b)) == pytest.approx(expected, rel=1e-6)


def test_many_images_are_compared_by_moments_bit_for_bit():
    a, b = normal(0, 60, 5), normal(1, 70, 5)
    assert fid(a, b) == frechet_distance(moments(a), moments(b))


def test_a_damaged_covariance_is_an_error_and_never_a_complex_number():
    good, bad = moments(normal(0, 50, 4)), moments(normal(1, 50, 4))
    bad.outer[0, 0] = -100.0
    with pytest.raises(ValueError, match="first side is not positive semi-definite: its small"):
        frechet_distance(bad, good)
    with pytest.raises(ValueError, match="second side is not positive semi-definite"):
        frechet_distance(good, bad)


def test_the_distance_of_features_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        fid(normal(0, 9, 3), normal(0, 9, 4))
    with pytest.raises(ValueError, match="each side; the second has 1"):
        fid(normal(0, 9, 3), normal(0, 1, 3))
    with pytest.raises(ValueError, match="each side; the first has 1"):
        fid(normal(0, 1, 3), normal(0, 9, 3))
    with pytest.raises(ValueError, match="non-finite"):
        fid(normal(0, 9, 30), normal(0, 9, 30) / 0)


def test_a_part_is_taken_away_again():
    x = normal(0, 40, 3)
    rest = moments_of(x, piece=7) - moments(x[:10])
    assert rest.count == 30
    torch.testing.assert_close(rest.covariance, moments(x[10:]).covariance)
    with pytest.raises(ValueError, match="40 images of 3 dimensions are not a part of 30"):
        rest - moments(x)


def test_the_distance_is_symmetric_and_zero_to_itself():
    a, b = moments(normal(0, 50, 6)), moments(normal(1, 50, 6) * 2)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)
    assert 0 <= frechet_distance(a, a) < 1e-9


def test_order_and_pieces_do_not_matter():
    x, y = normal(0, 60, 5), moments(normal(1, 60, 5))
    whole = frechet_distance(moments(x), y)
    shuffled = x[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    assert frechet_distance(moments(shuffled), y) == pytest.approx(whole, rel=1e-10)
    pieces = moments(x[:1]) + moments(x[1:7]) + Moments(5)
    pieces.add(x[7:])
    assert pieces.count == 60
    assert frechet_distance(pieces, y) == pytest.approx(whole, rel=1e-10)


def test_moments_are_numpys_mean_and_unbiased_covariance():
    x = normal(0, 30, 4) + 5
    torch.testing.assert_close(moments(x).mean, x.mean(0))
    expected = torch.from_numpy(np.cov(x.numpy(), rowvar=False))
    torch.testing.assert_close(moments(x).covariance, expected)


def test_float32_features_far_from_zero_keep_their_spread():
    x = normal(0, 1000, 3)
    far = moments((x + 1000).float())
    torch.testing.assert_close(far.covariance, x.T.cov(), rtol=1e-3, atol=1e-3)


def test_states_add_up_over_workers():
    x = normal(0, 40, 3)
    summed = moments(x[:15]).state() + moments(x[15:]).state() + Moments(3).state()
    result = Moments.from_state(summed)
    assert (result.count, result.dim, summed.dtype) == (40, 3, torch.float64)
    torch.testing.assert_close(result.mean, moments(x).mean)
    torch.testing.assert_close(result.covariance, moments(x).covariance)
    result.add(x)
    assert torch.equal(summed[1:4], moments(x[:15]).sum + moments(x[15:]).sum)  # a copy


def test_adding_leaves_both_sides_alone():
    a, b = moments(normal(0, 4, 2)), moments(normal(1, 4, 2))
    before = a.state(), b.state()
    both = a + b
    both.add(normal(2, 4, 2))
    assert torch.equal(a.state(), before[0]) and torch.equal(b.state(), before[1])


def test_too_few_images_are_named_with_their_side():
    one, two = moments(normal(0, 1, 3)), moments(normal(1, 2, 3))
    with pytest.raises(ValueError, match="at least 2 images on each side; the second has 1"):
        frechet_distance(two, one)
    with pytest.raises(ValueError, match="the first has 0"):
        frechet_distance(Moments(3), two)


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"features must be \(N, 3\), got \(2, 4\)"):
        Moments(3).add(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="non-finite"):
        Moments(1).add(torch.tensor([[0.0], [torch.nan]]))
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        frechet_distance(moments(normal(0, 5, 3)), moments(normal(0, 5, 4)))
