"""A reference whose classes count alike, however many images each has."""

import pytest
import torch
from feature_tools import normal

from cbdm_scale.data.groups import class_groups
from cbdm_scale.metrics.features import Features
from cbdm_scale.metrics.fid import FrechetTo, fid, moments_of
from cbdm_scale.metrics.groups import GroupScores, fid_by_group
from cbdm_scale.metrics.kid import kid, weighted_kid
from cbdm_scale.metrics.prd import prd
from cbdm_scale.metrics.precision_recall import manifold_scores
from cbdm_scale.metrics.reference import LabelledFeatures, Reference, class_weights
from cbdm_scale.metrics.sliced_wasserstein import SlicedTo, sliced_wasserstein

COUNTS = [300, 200, 150, 60, 50, 40, 15, 10, 5]


def labelled(seed, sizes, gap=1.0):
    y = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    return LabelledFeatures(normal(seed, len(y), 3) + gap * y[:, None], y)


def repeated(side, times):
    """Every image of class c so many times."""
    rows = torch.repeat_interleave(torch.arange(len(side.y)), torch.tensor(times)[side.y])
    return side.x[rows]


def test_weights_sum_to_their_squares_and_to_the_same_in_every_class():
    y = torch.tensor([0] * 6 + [1] * 3 + [4])
    w = class_weights(y)
    assert float(w.sum()) == pytest.approx(float(w.square().sum()))
    sums = torch.zeros(5).double().index_add(0, y, w)
    assert sums.tolist() == pytest.approx([2 / 3 * 3] * 2 + [0, 0, 2]), "3 / (1/6 + 1/3 + 1)"
    assert class_weights(torch.arange(30) % 3).tolist() == pytest.approx([1.0] * 30)


def test_the_moments_are_those_of_the_classes_mixed_in_equal_parts():
    side = labelled(0, [200, 20, 5])
    found = moments_of(side.x, weights=class_weights(side.y))
    parts = [side.of(torch.tensor([c])).x.double() for c in range(3)]
    mean = sum(p.mean(0) for p in parts) / 3
    assert torch.allclose(found.mean, mean)
    spread = sum((p - mean).T @ (p - mean) / len(p) for p in parts) / 3
    n = found.count
    assert torch.allclose(found.covariance, spread * n / (n - 1), rtol=1e-5)


def test_a_copy_of_an_image_for_each_that_a_class_lacks_gives_the_same_means():
    """But for what counts images: a weight is no further image."""
    side, fake = labelled(0, [40, 20, 10]), labelled(1, [30] * 3)
    w, copies = class_weights(side.y), repeated(side, [1, 2, 4])
    assert torch.allclose(moments_of(side.x, weights=w).mean, moments_of(copies).mean)
    to = SlicedTo(side.x, 50, weights=w)
    assert to(fake.x) == pytest.approx(sliced_wasserstein(copies, fake.x, 50), rel=1e-5)
    weighed = manifold_scores(side.x, fake.x, weights=w)
    plain = manifold_scores(side.x, fake.x)
    assert weighed.recall != plain.recall and weighed.precision == plain.precision
    all_pairs = weighted_kid(side.x, fake.x, torch.ones(90, 1), w)
    ones = weighted_kid(side.x, fake.x, torch.ones(90, 1), torch.ones(70))
    assert float(ones) == pytest.approx(kid(side.x, fake.x), rel=1e-6)
    assert float(all_pairs) != float(ones)


def test_equal_weights_change_nothing():
    side, fake = labelled(0, [30] * 3), labelled(1, [25] * 3)
    w = class_weights(side.y)
    assert FrechetTo(side.x, w)(fake.x) == pytest.approx(fid(side.x, fake.x), rel=1e-9)
    assert SlicedTo(side.x, 50, weights=w)(fake.x) == pytest.approx(
        sliced_wasserstein(side.x, fake.x, 50), rel=1e-6
    )
    assert prd(side.x, fake.x, 3, 1, weights=w).f8 == pytest.approx(
        prd(side.x, fake.x, 3, 1).f8, rel=1e-6
    )


def test_weights_count_also_along_the_first_directions_alone():
    """Which intervals take; a block may hold more projections than these."""
    side, fake = labelled(0, [40, 20, 10]), labelled(1, [30] * 3)
    weighed = SlicedTo(side.x, 50, weights=class_weights(side.y))
    copies = SlicedTo(repeated(side, [1, 2, 4]), 50)
    assert weighed(fake.x, 20) == pytest.approx(copies(fake.x, 20), rel=1e-5)
    assert weighed(fake.x, 20) != pytest.approx(weighed(fake.x), rel=1e-3)


def test_few_images_and_many_dimensions_take_the_other_way_to_the_same_distance():
    side = LabelledFeatures(normal(0, 12, 40), torch.tensor([0] * 8 + [1] * 4))
    fake = normal(1, 15, 40)
    w = class_weights(side.y)
    short = FrechetTo(side.x, w)
    assert short.factor is not None
    found = short.to_moments(moments_of(fake))
    assert short(fake) == pytest.approx(found, rel=1e-6)
    assert found == pytest.approx(
        FrechetTo(fake).to_moments(moments_of(side.x, weights=w)), rel=1e-6
    )


def test_imbalance_is_not_rewarded():
    """Of two sets the balanced one is nearer; without weights the one like the reference."""
    real = labelled(0, [1500, 400, 40], gap=3.0)
    balanced, tailed = labelled(1, [300] * 3, gap=3.0), labelled(2, [700, 180, 20], gap=3.0)
    for weigh in (True, False):
        refer = Reference(real.x, real.y, [150, 40, 4], weigh=weigh)
        a, b = (refer.to(None)(side.x) for side in (balanced, tailed))
        c, d = (refer.sliced(None)(side.x) for side in (balanced, tailed))
        assert (a < b) == (c < d) == weigh


def test_training_and_the_command_weigh_alike():
    sizes = [90, 50, 30, 20, 20, 10, 8, 4, 2]
    real, fake = labelled(0, sizes), labelled(1, [30] * 9)
    scores = [GroupScores(class_groups(COUNTS), 3, weigh=w) for w in (sizes, None)]
    for one, side in zip(scores, (real, fake), strict=True):
        for part in torch.arange(len(side.y)).chunk(4):  # in parts, as chunks come
            one.add(Features(side.x[part], None), side.y[part])
    again = GroupScores(class_groups(COUNTS), 3, weigh=sizes)
    again.load(scores[0].state())
    known = fid_by_group(again, scores[1])
    refer = Reference(real.x, real.y, COUNTS, weigh=True)
    assert known["fid"] == pytest.approx(refer.to(None)(fake.x), rel=1e-6)
    for group, members in (("many", [0, 1, 2]), ("few", [6, 7, 8])):
        side = fake.of(torch.tensor(members))
        assert known[f"fid_{group}"] == pytest.approx(refer.to(group)(side.x), rel=1e-6)
