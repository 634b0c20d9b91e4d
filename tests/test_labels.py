"""Label distributions, and the groups of classes that results are given for."""

import numpy as np
import pytest
import torch

from cbdm_scale.data.groups import class_groups
from cbdm_scale.diffusion.labels import class_cyclic, class_probs, draw_labels

COUNTS = torch.tensor([100, 25, 1])


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        pytest.param(1.0, [100 / 126, 25 / 126, 1 / 126], id="train"),
        pytest.param(0.5, [10 / 16, 5 / 16, 1 / 16], id="sqrt"),
        pytest.param(0.0, [1 / 3, 1 / 3, 1 / 3], id="balanced"),
    ],
)
def test_class_probs_are_powers_of_the_counts(power, expected):
    torch.testing.assert_close(class_probs(COUNTS, power), torch.tensor(expected).double())


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match="2 have none, the first of them class 1"):
        class_probs(torch.tensor([3, 0, -1]), power=1.0)


def test_labels_are_cut_where_the_distribution_says():
    probs = torch.tensor([0.5, 0.25, 0.25])
    u = torch.tensor([0.0, 0.4999, 0.5, 0.7499, 0.75, 0.9999, 1.0])
    assert draw_labels(probs, u).tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_labels_follow_their_distribution_and_only_its_support():
    u = (torch.arange(1000) + 0.5).double() / 1000
    labels = draw_labels(torch.tensor([0.0, 0.2, 0.0, 0.8, 0.0]), u)
    assert labels.dtype == np.int64
    assert np.bincount(labels, minlength=5).tolist() == [0, 200, 0, 800, 0]


def test_probabilities_need_not_sum_to_one():
    u = torch.rand(100)
    probs = class_probs(COUNTS, 0.5)
    assert np.array_equal(draw_labels(16 * probs, u), draw_labels(probs, u))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param([500, 400, 101, 100, 50, 20, 19, 5, 1], "MMMmmmfff", id="bounds"),
        pytest.param([19, 500, 20, 1, 101, 100, 0, 300, 50], "fMmfMmfMm", id="any order"),
        pytest.param([174, 104, 62, 37, 22, 13, 8, 4, 2, 2], "MMMmmmmfff", id="digits"),
        pytest.param([500, 90, 80, 19, 1, 1], "MMmmff", id="one class with many: thirds"),
        pytest.param([40] * 6, "mmmmmm", id="equal counts: one group by their number"),
        pytest.param([5000] * 10, "MMMMMMMMMM", id="equal counts: many"),
        pytest.param([9] * 5 + [500] * 5, "fffffMMMMM", id="a step: equal ones together"),
        pytest.param([9, 5, 5, 5, 5, 1], "Mmmmmf", id="equal ones in the middle"),
        pytest.param([3, 9, 6, 8, 5, 7, 4, 2, 1, 0], "mMmMmMmfff", id="ten: 3 / 4 / 3"),
        pytest.param([900, 800, 700, 600, 500], "Mmmmf", id="five: 1 / 3 / 1"),
    ],
)
def test_classes_are_grouped_by_their_training_images(counts, expected):
    letters = {"many": "M", "medium": "m", "few": "f"}
    assert "".join(letters[group] for group in class_groups(counts)) == expected


def test_cyclic_labels_are_balanced_and_all_there():
    labels = class_cyclic(torch.arange(23), 10)
    assert labels.tolist() == [i % 10 for i in range(23)]
    assert torch.bincount(class_cyclic(torch.arange(500), 10)).tolist() == [50] * 10
