import pytest
import torch

from cbdm_scale.metrics.features import Features
from cbdm_scale.metrics.fid import Moments, frechet_distance
from cbdm_scale.metrics.groups import GroupScores, fid_by_group, spread_rows, stored_manifold
from cbdm_scale.metrics.per_class import class_table
from cbdm_scale.metrics.precision_recall import manifold_scores
from cbdm_scale.metrics.reference import LabelledFeatures, Reference, class_weights

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
    labels = y[:30], y[:30]
    found = stored_manifold(*sides, labels, seed=0)
    assert found[None] == expected
    nothing = scores((real, y))
    assert stored_manifold(nothing, sides[1], (y[:0], y[:30]), seed=0) == {}


def kept_features(x, y, weigh=None, groups=GROUPS):
    kept = GroupScores(groups, 3, num_stored=len(y), weigh=weigh)
    kept.add(x, y, torch.arange(len(y)))
    return kept


@pytest.mark.parametrize("weigh", [False, True])
def test_recall_by_group_is_that_of_the_evaluate_command(weigh):
    """Of other numbers on the two sides, and of a long-tailed real side."""
    y_real = torch.cat([torch.arange(80) % 4, torch.ones(40).long()])
    y_fake = torch.arange(60) % 4
    real, fake = features(0, 120), features(1, 60, shift=1.2)
    trained = 5, 500, 50, 40
    refer = Reference(real.pool, y_real, trained, weigh=weigh)
    counts = torch.bincount(y_real).tolist() if weigh else None
    mine = kept_features(real, y_real, counts, refer.groups)
    made = kept_features(fake, y_fake, groups=refer.groups)
    found = stored_manifold(mine, made, (y_real, y_fake), seed=3)
    both = LabelledFeatures(real.pool, y_real), LabelledFeatures(fake.pool, y_fake)
    table = class_table(*both, trained, seed=3, reference=refer, intervals=False)
    assert {row.group: row.recall for row in table.pooled} == {
        group: one.recall for group, one in found.items()
    }
    few = [side[y == 0] for side, y in ((real.pool, y_real), (fake.pool, y_fake))]
    drawn = few[0][torch.randperm(20, generator=torch.Generator().manual_seed(3))[:15]]
    assert found["few"].recall == manifold_scores(drawn, few[1]).recall
    if weigh:
        rows = torch.randperm(120, generator=torch.Generator().manual_seed(3))[:60]
        weights = class_weights(y_real[rows])
        expected = manifold_scores(real.pool[rows], fake.pool, weights=weights)
        assert found[None] == expected != manifold_scores(real.pool[rows], fake.pool)


def test_a_group_with_five_features_has_no_recall():
    y = torch.tensor([0] * 5 + [1] * 6 + [2] * 9)
    sides = [kept_features(features(seed, 20), y) for seed in (0, 1)]
    assert list(stored_manifold(*sides, (y, y), seed=0)) == [None, "many", "medium"]
