import pytest
import torch
from feature_tools import normal, skewed
from torch_fidelity.metric_prc import calculate_precision_recall_full

from cbdm_scale.metrics import neighbours
from cbdm_scale.metrics.precision_recall import ball_radius, manifold_scores


def by_full_matrix(real, fake, k):
    """The four definitions, in float64 with all distances at once."""

    def distances(a, b):
        return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")

    r = distances(real, real).kthvalue(k + 1, dim=1).values  # + 1 skips itself
    f = distances(fake, fake).kthvalue(k + 1, dim=1).values
    across = distances(real, fake)
    in_real, in_fake = across <= r[:, None], across <= f
    return (
        in_real.any(0).double().mean().item(),
        in_fake.any(1).double().mean().item(),
        in_real.double().sum().item() / (k * len(fake)),
        in_real.any(1).double().mean().item(),
    )


def tuple_of(scores):
    return scores.precision, scores.recall, scores.density, scores.coverage


@pytest.mark.parametrize("screen", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [3, 5])
def test_all_four_equal_the_full_matrix_exactly(screen, k, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 256)
    real, fake = skewed(0, 900, 32), skewed(1, 700, 32) * 0.98
    scores = tuple_of(manifold_scores(real, fake, k, screen=screen))
    assert scores == pytest.approx(by_full_matrix(real, fake, k), abs=1e-12)
    assert all(0.02 < score < 0.98 for score in (scores[0], scores[1], scores[3]))


def test_precision_and_recall_are_torch_fidelitys():
    real, fake = skewed(0, 400, 24), skewed(1, 300, 24)
    scores = manifold_scores(real, fake, k=3)
    precision, recall = calculate_precision_recall_full(fake.double(), real.double(), 3)
    assert (scores.precision, scores.recall) == pytest.approx((precision, recall), abs=1e-6)


def test_same_points_are_perfect():
    x = normal(0, 64, 4)
    scores = manifold_scores(x, x)
    assert (scores.precision, scores.recall, scores.coverage) == (1.0, 1.0, 1.0)
    assert scores.density >= 1  # every image lies in its own ball, too


def test_dropped_mode_costs_recall_only():
    near, far = normal(0, 100, 4), normal(1, 100, 4) + 100
    scores = manifold_scores(real=torch.cat([near, far]), fake=near)
    assert (scores.precision, scores.recall, scores.coverage) == (1.0, 0.5, 0.5)


def test_junk_costs_precision_only():
    real, junk = normal(0, 100, 4), normal(1, 300, 4) + 100
    scores = manifold_scores(real, torch.cat([real, junk]))
    assert (scores.precision, scores.recall, scores.coverage) == (0.25, 1.0, 1.0)


def test_density_forgives_a_real_outlier_that_precision_takes_for_a_manifold():
    """Naeem et al., Figure 2: the ball of one outlier swallows images far from all others."""
    real = torch.cat([normal(0, 200, 4), torch.full((1, 4), 30.0)])
    scores = manifold_scores(real, normal(1, 100, 4) + 15)
    assert scores.precision == 1.0 and scores.density < 0.25 and scores.coverage < 0.01


def test_a_collapsed_network_has_full_precision_and_no_coverage():
    real = normal(0, 200, 4)
    scores = manifold_scores(real, real[:1].expand(200, 4))
    assert scores.precision == 1.0
    assert scores.recall == 1 / 200  # balls of radius 0: only the repeated image itself
    assert scores.coverage < 0.1


def test_ball_radius_is_the_distance_to_the_kth_other_image():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert ball_radius(x, 2).tolist() == [3, 2, 3, 6]


def test_the_edge_of_a_ball_belongs_to_it():
    real, fake = torch.tensor([[0.0], [1], [3], [7]]), torch.tensor([[-1.0], [11], [11.01]])
    scores = manifold_scores(real, fake, k=1)  # real radii 1, 1, 2, 4
    assert (scores.precision, scores.coverage) == (2 / 3, 2 / 4)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="more than 5 images on each side; there are 5 gener"):
        manifold_scores(normal(0, 6, 2), normal(0, 5, 2))
