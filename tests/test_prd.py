import numpy as np
import pytest
import torch
from feature_tools import normal, skewed
from sklearn.cluster import MiniBatchKMeans
from sklearn.datasets import load_digits

from cbdm_scale.metrics import prd as module
from cbdm_scale.metrics.prd import f_beta, kmeans, nearest_centre, prd, prd_curve


def two_modes(seed, n):
    return normal(seed, n, 4), normal(seed + 1, n, 4) + 100


def test_a_dropped_mode_costs_recall_only():
    near, far = two_modes(0, 500)
    scores = prd(torch.cat([near, far]), torch.cat([near, near]), num_classes=1)
    assert scores.precision.max() == pytest.approx(1, abs=1e-6)
    assert scores.recall.max() == pytest.approx(1 / 2, abs=1e-6)
    # at precision 1 and recall 1/2
    assert scores.f8 == pytest.approx(65 * 0.5 / (64 + 0.5), abs=1e-3)
    assert scores.f_eighth == pytest.approx((65 / 64) * 0.5 / (1 / 64 + 0.5), abs=1e-3)


def test_an_invented_mode_costs_precision_only():
    near, far = two_modes(0, 500)
    scores = prd(torch.cat([near, near]), torch.cat([near, far]), num_classes=1)
    assert scores.recall.max() == pytest.approx(1, abs=1e-6)
    assert scores.precision.max() == pytest.approx(1 / 2, abs=1e-6)
    assert scores.f8 > 0.95 and scores.f_eighth < 0.55


def test_equal_sets_are_perfect_and_separate_ones_have_nothing():
    near, far = two_modes(0, 300)
    same = prd(near, near, num_classes=1)
    assert (same.f8, same.f_eighth) == pytest.approx((1, 1), abs=1e-3)
    apart = prd(near, far, num_classes=1)
    assert (apart.f8, apart.f_eighth) == pytest.approx((0, 0), abs=1e-6)


def test_the_curve_is_the_papers_algorithm_1():
    p, q = torch.tensor([0.5, 0.3, 0.2, 0.0]), torch.tensor([0.1, 0.3, 0.2, 0.4])
    precision, recall = prd_curve(p, q)
    angles = np.linspace(1e-10, np.pi / 2 - 1e-10, 1001)
    for m in (0, 100, 500, 900, 1000):
        slope = np.tan(angles[m])
        alpha = sum(min(slope * a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
        assert float(precision[m]) == pytest.approx(alpha, rel=1e-6)
        assert float(recall[m]) == pytest.approx(alpha / slope, rel=1e-6)
    assert f_beta(precision, recall, 8) == pytest.approx(
        max(65 * a * b / (64 * a + b) for a, b in zip(precision, recall, strict=True))
    )


def test_f_is_taken_from_the_curve_averaged_over_the_runs():
    x, y = normal(0, 400, 4), normal(1, 400, 4) + 0.5
    runs = prd(x, y, num_classes=1, num_runs=3)
    one = prd(x, y, num_classes=1, num_runs=1)
    assert (runs.precision - one.precision).abs().max() > 1e-3
    assert runs.f8 == f_beta(runs.precision, runs.recall, 8)
    assert torch.equal(runs.precision, prd(x, y, num_classes=1, num_runs=3).precision)


def test_clusters_are_20_a_class_capped_at_a_tenth_of_the_images():
    x = normal(0, 405, 3)
    free, capped = prd(x, x, 2, num_runs=1), prd(x, x, 10, num_runs=1)
    assert (free.num_clusters, free.capped, free.note()) == (
        40,
        False,
        "40 clusters of 405 images a side",
    )
    assert (capped.num_clusters, capped.wanted_clusters, capped.capped) == (40, 200, True)
    assert "capped at a tenth of the images, 20 a class would be 200" in capped.note()


def test_both_sides_hold_equally_many_images():
    near, far = two_modes(0, 300)
    scores = prd(torch.cat([near, far]).repeat(3, 1), near, num_classes=1)
    assert scores.num_images == 300
    assert scores.recall.max() == pytest.approx(1 / 2, abs=0.1)  # of a random 300


def test_too_few_images_and_damaged_features_are_refused():
    with pytest.raises(ValueError, match="at least 20 images on each side"):
        prd(normal(0, 19, 2), normal(0, 50, 2), 10)
    with pytest.raises(ValueError, match="non-finite"):
        prd(torch.full((40, 2), torch.inf), normal(0, 50, 2), 10)


def inertia(x, centres):
    return float((x - centres[nearest_centre(x, centres)]).square().sum())


def test_separate_blobs_are_found():
    middles = 50 * normal(0, 20, 8)
    x = (middles[:, None] + normal(1, 20 * 60, 8).view(20, 60, 8)).flatten(0, 1)
    labels = nearest_centre(x, kmeans(x, 20)).view(20, 60)
    assert (labels == labels[:, :1]).all() and len(labels[:, 0].unique()) == 20


@pytest.mark.parametrize("num_clusters", [10, 100])
def test_clusters_are_as_tight_as_scikit_learns(num_clusters):
    x = torch.from_numpy(load_digits().data).float()
    x -= x.mean(0)
    theirs = [
        MiniBatchKMeans(num_clusters, n_init=1, random_state=s).fit(x.numpy()).inertia_
        for s in range(3)
    ]
    ours = [inertia(x, kmeans(x, num_clusters, s)) for s in range(3)]
    assert sum(ours) < 1.02 * sum(theirs)


def test_the_seed_decides():
    x = skewed(0, 500, 6)
    assert torch.equal(kmeans(x, 12, 3), kmeans(x, 12, 3))
    assert not torch.equal(kmeans(x, 12, 3), kmeans(x, 12, 4))


def test_first_centres_avoid_each_other():
    x = torch.cat([torch.zeros(990, 2), torch.tensor([[9.0, 0], [0, 9]]).repeat(5, 1)])
    centres = module.first_centres(x, 3, torch.Generator().manual_seed(0))
    assert len(centres.unique(dim=0)) == 3


def test_the_nearest_centre_is_that_of_the_full_matrix():
    x, centres = skewed(0, 5000, 6), skewed(1, 30, 6)
    assert torch.equal(nearest_centre(x, centres), torch.cdist(x, centres).argmin(1))


def test_identical_images_and_too_many_clusters():
    x = torch.ones(20, 3)
    assert torch.equal(kmeans(x, 4), torch.ones(4, 3))
    with pytest.raises(ValueError, match="21 clusters cannot be made of 20 images"):
        kmeans(x, 21)
