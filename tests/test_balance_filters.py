"""Thresholds from real images, verdicts on generated ones, and how many to make."""

import math

import pytest
import torch

from cbdm_scale.balancing.filters import (
    ImageFilter,
    Looks,
    Thresholds,
    choose_thresholds,
    nearest_of_class,
    share_passed,
    unknown_classes,
)
from cbdm_scale.balancing.options import FILTERS, BalanceOptions
from cbdm_scale.balancing.quotas import chosen_classes, lacking, next_quotas


def looks(points, labels, confidence=None) -> Looks:
    """Images of one feature each."""
    y = torch.tensor(labels)
    sure = torch.ones(len(y)) if confidence is None else torch.tensor(confidence)
    features = torch.tensor(points, dtype=torch.float32)[:, None]
    return Looks(labels=y, features=features, confidence=sure.double(), predicted=y)


def limits(num=1, label=0.5, near=1.0, far=10.0) -> Thresholds:
    ones = torch.ones(num, dtype=torch.float64)
    return Thresholds(
        label=label * ones, near=near * ones, far=far * ones, basis=("all",) * num
    )


# ----------------------------------------------------------------------------
# How many.


def test_what_classes_lack():
    counts = (100, 40, 2, 0)
    assert lacking("fill", counts, range(4)) == (0, 60, 98, 0), "none of a class never seen"
    assert lacking("50", counts, range(4)) == (0, 10, 48, 0)
    assert lacking("x2.5", counts, range(4)) == (150, 60, 3, 0)
    assert lacking("fill", counts, [2]) == (0, 0, 98, 0)


def test_classes_are_named_or_come_by_group():
    groups, names = ("many", "few", "few"), ("cat", "few", "dog")
    assert chosen_classes(["many", "dog"], groups, names) == (["dog"], [0])
    assert chosen_classes(["few"], groups, names) == (["few"], []), "a class called few"
    assert chosen_classes(["few"], groups, ("a", "b", "c")) == ([], [1, 2])


def test_rounds_follow_what_was_accepted_up_to_a_limit():
    assert next_quotas((0, 5, 100), (0, 0, 0), (0, 0, 0), 10) == (0, 8, 20), "a probe"
    # (18 + 1) / (20 + 2) of a class, and (1 + 1) / 22: 1.1 x 82 x 22 / 19, 1.1 x 99 x 11
    assert next_quotas((100, 100), (18, 1), (20, 20), 20) == (105, 1198)
    assert next_quotas((100, 100), (18, 1), (20, 20), 3) == (105, 280)
    assert next_quotas((100, 100), (100, 50), (300, 300), 3) == (0, 0), "full, and at its limit"
    made, took, rounds = [0], [0], 0
    while any(quotas := next_quotas((50,), took, made, 4)):
        made, rounds = [made[0] + quotas[0]], rounds + 1
        took = [made[0] // 10]
    assert made == [200] and rounds < 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "x1"}, r"to \(x1\) says no number of images"),
        ({"to": "0"}, r"to \(0\) says no number"),
        ({"guidance": (0.5, 1.0)}, "a data set is made with one"),
        ({"filters": ("none", "label")}, "filters none takes every image"),
        ({"keep": 1.0}, "keep must be .* got 1"),
        ({"most": 0.5}, "most must be at least 1, got 0.5"),
        ({"extractor": "none"}, "extractor none measures no distance"),
        ({"dataset": "a/b"}, "dataset"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        BalanceOptions(**options)


# ----------------------------------------------------------------------------
# Thresholds.


def test_a_threshold_is_the_one_that_keep_of_the_real_images_pass():
    # 101 images a step apart at ever larger distances: gaps 1, 2, ..., 100.
    points = [i * (i + 1) / 2 for i in range(101)]
    sure = [i / 100 for i in range(101)]
    held = looks(points, [0] * 101, sure)
    train = looks([-10.0], [0])
    found = choose_thresholds(held, train, ("many",), 0.9)
    assert found.basis == ("class",)
    assert found.label.item() == 1.0, "of one class a guess is always right"
    gaps = torch.tensor([1.0, *range(1, 101)], dtype=torch.float64)  # to the nearest other
    assert found.near.item() == pytest.approx(gaps.quantile(0.1).item())
    far = torch.tensor(points, dtype=torch.float64) + 10
    assert found.far.item() == pytest.approx(far.quantile(0.9).item())
    two = choose_thresholds(held, train, ("many", "few"), 0.9)
    assert two.label[0].item() == 0.5, "never below a guess"
    sharp = looks(points, [0] * 101, [0.6 + s / 5 for s in sure])
    assert choose_thresholds(sharp, train, ("many", "few"), 0.9).label[0].item() == (
        pytest.approx(0.62)
    )


def test_classes_that_the_classifier_does_not_know_are_named():
    held = looks([*range(40)], [0] * 20 + [1] * 20, [0.9] * 20 + [0.3] * 20)
    found = choose_thresholds(held, None, ("many", "few"), 0.9)
    assert found.label.tolist() == pytest.approx([0.9, 0.5])
    assert unknown_classes(found, (5, 5)) == [1] and unknown_classes(found, (5, 0)) == []


def test_few_held_out_images_take_the_threshold_of_the_group_or_of_all():
    points = [*range(0, 60, 3), *range(100, 120), 200.0, 220.0]
    labels = [0] * 20 + [1] * 20 + [2] * 2
    groups = ("many", "few", "few", "medium")
    found = choose_thresholds(looks(points, labels), looks([0.0], [0]), groups, 0.95)
    assert found.basis == ("class", "class", "group", "all")
    assert found.near.tolist()[:3] == [3.0, 1.0, 1.0]
    assert found.far[2].isnan(), "no training image of the group: nothing to be far from"


def test_without_held_out_images_the_training_images_are_compared_with_each_other():
    train = looks([0.0, 1.0, 3.0, 100.0], [0, 0, 0, 1])
    assert nearest_of_class(train, None).tolist() == [1.0, 1.0, 2.0, math.inf]
    found = choose_thresholds(train, None, ("many", "few"), 0.5)
    assert found.basis == ("all", "all")
    assert found.near.tolist() == found.far.tolist() == [1.0, 1.0]


def test_real_images_pass_as_often_as_keep_says():
    torch.manual_seed(0)
    points = torch.randn(600).tolist()
    held, train = looks(points[:300], [0] * 300), looks(points[300:], [0] * 300)
    found = choose_thresholds(held, train, ("many",), 0.9)
    assert share_passed(held, train, found, ["copies"]) == pytest.approx(0.9, abs=0.01)
    assert share_passed(held, train, found, ["outliers"]) == pytest.approx(0.9, abs=0.01)
    assert share_passed(held, train, found, []) == 1.0


# ----------------------------------------------------------------------------
# Verdicts.


def test_each_filter_rejects_its_own():
    train = looks([0.0, 100.0], [0, 1])
    chosen = ImageFilter(limits(2), train, FILTERS, (9, 9))
    made = looks([5, 5.5, 7, 0.5, 95, 49, 90], [0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 0.4])
    found = chosen(made)
    assert found.reasons == (
        *("", "duplicates", "", "copies"),
        *("outliers", "outliers", "label"),  # 95 is near an image of the other class
    )
    assert found.nearest.tolist() == [0, 0, 0, 0, 1, 0, 1]
    assert found.distance.tolist() == [5, 5.5, 7, 0.5, 5, 49, 10]
    assert found.class_distance.tolist() == [5, 5.5, 7, 0.5, 95, 49, 10]
    assert found.made_distance.tolist()[:3] == [math.inf, 0.5, 2.0]
    assert chosen.count == [2, 0]


def test_a_judge_knows_the_rounds_before_and_takes_no_more_than_is_lacking():
    chosen = ImageFilter(limits(), looks([0.0], [0]), FILTERS, (2,))
    assert chosen(looks([3.0], [0])).reasons == ("",)
    assert chosen(looks([3.5, 5.0, 7.0], [0] * 3)).reasons == ("duplicates", "", "spare")


def test_no_filter_takes_all_and_the_same_pixels_are_a_copy_at_any_threshold():
    train = looks([0.0], [0])
    assert (
        ImageFilter(limits(), train, (), (9,))(looks([0, 0, 99], [0] * 3)).reasons == ("",) * 3
    )
    none = limits(near=math.nan, far=math.nan)
    found = ImageFilter(none, train, FILTERS, (9,))(looks([0.0, 1e9, 1e9], [0] * 3))
    assert found.reasons == ("copies", "", "duplicates")
