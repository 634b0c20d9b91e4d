"""Precision and recall over classes, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score

from cbdm_scale.recognition.confusion import (
    class_precision,
    class_recall,
    confusion,
    group_confusion,
    macro_scores,
    scores_by_group,
    scores_over_seeds,
)

K = 7
GROUPS = ("many", "many", "medium", "medium", "few", "few", "few")


def guesses(seed=0, n=300):
    """Labels and predictions of K classes that agree half of the time; 6 is never guessed."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    found = np.where(rng.random(n) < 0.5, y, rng.integers(0, K, n))
    return torch.from_numpy(y), torch.from_numpy(np.where(found == 6, 0, found))


def test_the_table_is_scikit_learns():
    y, found = guesses()
    table = confusion(y, found, K)
    assert table.dtype == torch.int64
    assert np.array_equal(table, confusion_matrix(y, found, labels=range(K)))


@pytest.mark.parametrize("seed", range(3))
def test_all_scores_are_scikit_learns_macro_averages(seed):
    y, found = guesses(seed)
    scores = scores_by_group(confusion(y, found, K), GROUPS)
    assert list(scores) == ["all", "many", "medium", "few"]
    for name, ours in scores.items():
        chosen = [c for c in range(K) if name in ("all", GROUPS[c])]
        how = {"labels": chosen, "average": "macro", "zero_division": 0}
        assert ours.precision == pytest.approx(precision_score(y, found, **how))
        assert ours.recall == pytest.approx(recall_score(y, found, **how))
        of_these = np.isin(y, chosen)
        assert ours.accuracy == pytest.approx(accuracy_score(y[of_these], found[of_these]))
        assert ours.classes == len(chosen)
        assert ours.never_predicted == (6 in chosen)


def test_a_class_without_test_images_is_in_no_average():
    table = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert class_precision(table).isnan().tolist() == [False, False, True]
    assert class_recall(table).isnan().tolist() == [False, False, True]
    scores = scores_by_group(table, ("many", "medium", "few"))
    assert scores["all"].recall == pytest.approx((3 / 4 + 1) / 2)
    assert scores["all"].classes == 2 and "few" not in scores
    assert macro_scores(table, torch.tensor([False, False, True])) is None


def test_precision_of_a_group_counts_what_other_groups_lose_to_it():
    table = torch.tensor([[2, 0], [6, 2]])
    scores = scores_by_group(table, ("many", "few"))
    assert scores["many"].precision == pytest.approx(2 / 8)
    assert scores["many"].recall == 1 and scores["few"].precision == 1


def test_group_confusion_says_where_the_tail_goes():
    table = torch.tensor([[8, 2, 0], [0, 5, 5], [9, 0, 1]])
    shares = group_confusion(table, ("many", "many", "few"))
    assert shares.keys() == {"many", "few"}
    assert shares["few"] == pytest.approx({"many": 0.9, "medium": 0.0, "few": 0.1})
    assert shares["many"] == pytest.approx({"many": 0.75, "medium": 0.0, "few": 0.25})


def test_over_seeds_gives_mean_and_half_the_range():
    tables = [confusion(*guesses(seed), K) for seed in range(3)]
    recalls = [scores_by_group(table, GROUPS)["few"].recall for table in tables]
    spread = scores_over_seeds(tables, GROUPS)["few"]["recall"]
    assert spread.mean == pytest.approx(np.mean(recalls))
    assert spread.half_range == pytest.approx((max(recalls) - min(recalls)) / 2)
