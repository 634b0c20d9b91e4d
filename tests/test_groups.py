import pytest
import torch

from cbdm_scale.metrics.features import Features
from cbdm_scale.metrics.fid import Moments, frechet_distance
from cbdm_scale.metrics.groups import GroupScores, fid_by_group, spread_rows, stored_recall
from cbdm_scale.metrics.precision_recall import manifold_scores

GROUPS = ("few", "many", "medium", "many")  # by class, not sorted


def features(seed, n, shift=0.0, logits=True):
    rng = torch.Generator().manual_seed(seed)
    pool = torch.randn(n, 3, generator=rng) + shift
    return Features(pool, torch.randn(n, 4, generator=rng) if logits else None)


def scores(*pieces):
    result = GroupScores(GROUPS, dim=3)
    for piece, labels in pieces:
        result.add(piece, labels)
    return result


def only(features, keep):
    moments = Moments(3)
    moments.add(features.pool[keep])
    return moments


def test_fid_by_group_is_the_fid_of_the_groups_images():
    y_real, y_fake = torch.arange(80) % 4, torch.arange(60) % 4
    real, fake = features(0, 80), features(1, 60, shift=0.5)
    by_group = fid_by_group(scores((real, y_real)), scores((fake, y_fake)))
    assert list(by_group) == ["fid", "fid_many", "fid_medium", "fid_few"]
    members = {"fid_many": [1, 3], "fid_medium": [2], "fid_few": [0], "fid": [0, 1, 2, 3]}
    for key, classes in members.items():
        keep = [torch.isin(y, torch.tensor(classes)) for y in (y_real, y_fake)]
        expected = frechet_distance(only(real, keep[0]), only(fake, keep[1]))
        assert by_group[key] == pytest.approx(expected, rel=1e-9)


def test_a_shift_of_one_group_shows_in_its_own_fid_only():
    y, real = torch.arange(400) % 4, features(0, 400)
    pool = real.pool.clone()
    pool[y == 0] += 2
    by_group = fid_by_group(scores((real, y)), scores((Features(pool, None), y)))
    assert by_group["fid_few"] == pytest.approx(3 * 2**2, rel=1e-6)
    assert by_group["fid_many"] == pytest.approx(0, abs=1e-6)
    assert 0 < by_group["fid"] < by_group["fid_few"]


def test_pieces_workers_and_states_agree_with_all_at_once():
    y, x = torch.arange(50) % 4, features(0, 50)
    first = Features(x.pool[:7], x.logits[:7]), y[:7]
    rest = Features(x.pool[7:], x.logits[7:]), y[7:]
    whole = scores((x, y))
    loaded = GroupScores(GROUPS, dim=3)
    loaded.load(scores(first).state() + scores(rest).state())
    for other in (scores(rest, first), loaded):
        torch.testing.assert_close(other.state(), whole.state())
        assert other.label_fidelity() == whole.label_fidelity()
        assert fid_by_group(whole, other)["fid_few"] == pytest.approx(0, abs=1e-9)
    assert whole.state().dtype == torch.float64 and whole.state().ndim == 1


def test_label_fidelity_counts_hits_by_group_and_class():
    y = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3])
    guess = torch.tensor([0, 1, 1, 1, 0, 2, 3, 0])
    logits = torch.nn.functional.one_hot(guess, 4).float()
    result = scores((Features(torch.zeros(8, 3), logits), y))
    assert result.label_fidelity() == {
        "fidelity": 5 / 8,
        "fidelity_many": 3 / 5,
        "fidelity_medium": 1.0,
        "fidelity_few": 1 / 2,
    }
    expected = torch.tensor([1 / 2, 2 / 3, 1, 1 / 2], dtype=torch.float64)
    torch.testing.assert_close(result.hits / result.classified, expected)
    assert result.num_images.tolist() == [2, 3, 1, 2]


def test_what_was_not_judged_has_no_score():
    y = torch.tensor([1, 1, 2, 2, 2])
    unjudged = scores((features(0, 5, logits=False), y))
    assert unjudged.label_fidelity() == {}
    assert not unjudged.classified.any()
    assert list(scores((features(0, 5), y)).label_fidelity()) == [
        "fidelity",
        "fidelity_many",
        "fidelity_medium",
    ]


def test_a_group_of_one_image_has_no_fid_and_too_few_in_all_is_an_error():
    y = torch.tensor([1, 1, 3, 2, 2, 0])
    part = scores((features(0, 6), y))
    assert list(fid_by_group(part, part)) == ["fid", "fid_many", "fid_medium"]
    with pytest.raises(ValueError, match="at least 2 images"):
        fid_by_group(part, GroupScores(GROUPS, dim=3))


def test_labels_and_extractors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.3, got 0\.\.4"):
        scores((features(0, 2), torch.tensor([0, 4])))
    with pytest.raises(ValueError, match="2 images but 3 labels"):
        scores((features(0, 2), torch.tensor([0, 1, 2])))
    with pytest.raises(ValueError, match="extractor knows 7 classes and the data set has 4"):
        scores((Features(torch.zeros(2, 3), torch.zeros(2, 7)), torch.tensor([0, 1])))


def test_scores_of_nothing_more_change_nothing():
    y, x = torch.arange(8) % 4, features(0, 8)
    empty = Features(torch.zeros(0, 3), torch.zeros(0, 4)), torch.zeros(0, dtype=torch.int64)
    assert torch.equal(scores((x, y), empty).state(), scores((x, y)).state())


def test_kept_features_of_two_workers_are_those_of_one_in_their_rows():
    y, x = torch.arange(50) % 4, features(0, 50)
    rows = spread_rows(torch.arange(50), 50, 7)
    assert sorted(rows[rows >= 0].tolist()) == list(range(7))
    whole = GroupScores(GROUPS, 3, num_stored=7)
    whole.add(x, y, rows)
    torch.testing.assert_close(whole.stored, x.pool[rows >= 0].double())
    halves = [GroupScores(GROUPS, 3, num_stored=7) for _ in range(2)]
    for half, some in zip(halves, (slice(0, 20), slice(20, 50)), strict=True):
        half.add(Features(x.pool[some], None), y[some], rows[some])
    loaded = GroupScores(GROUPS, 3, num_stored=7)
    loaded.load(halves[0].state() + halves[1].state())
    assert torch.equal(loaded.stored, whole.stored)
    assert spread_rows(torch.tensor([0, 4, 9]), 10, 10).tolist() == [0, 4, 9]
    assert (spread_rows(torch.arange(10), 10, 0) == -1).all()


def test_recall_is_that_of_the_kept_features_only():
    y, real, fake = torch.arange(40) % 4, features(0, 40), features(1, 40, shift=0.5)
    sides = []
    for x in (real, fake):
        kept = GroupScores(GROUPS, 3, num_stored=30)
        kept.add(x, y, torch.arange(40))
        sides.append(kept)
    expected = manifold_scores(real.pool[:30], fake.pool[:30])
    assert stored_recall(*sides) == {"precision": expected.precision, "recall": expected.recall}
    assert stored_recall(scores((real, y)), sides[1]) == {}
