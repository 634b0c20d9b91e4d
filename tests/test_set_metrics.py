"""All numbers of a set from features, on random ones."""

from dataclasses import replace

import pytest
import torch
from feature_tools import normal

from cbdm_scale.evaluation import set_metrics as module
from cbdm_scale.evaluation.examples import shown_classes
from cbdm_scale.evaluation.floors import (
    held_out,
    held_out_copies,
    make_reference,
    real_floors,
    stand_ins,
)
from cbdm_scale.evaluation.set_metrics import compute_metrics, num_steps
from cbdm_scale.metrics.extract import FeatureSet
from cbdm_scale.metrics.fid import FrechetTo, fid
from cbdm_scale.metrics.inception_score import inception_score_of_logits
from cbdm_scale.metrics.kid import kid
from cbdm_scale.metrics.memorisation import memorisation
from cbdm_scale.metrics.per_class import class_table
from cbdm_scale.metrics.prd import prd
from cbdm_scale.metrics.precision_recall import manifold_scores
from cbdm_scale.metrics.reference import LabelledFeatures, Reference
from cbdm_scale.metrics.sliced_wasserstein import sliced_wasserstein

COUNTS = [200, 30, 10]


def measure(real, fake, train, counts, reference=None, seed=0, **options):
    refer = reference or make_reference(real, train, counts, seed=seed)
    about = {"omega": 0.8, "guidance_mode": "cfg", "images": "here", "seed": seed}
    return compute_metrics(refer, fake, counts, **about, **options)


def some(seed, n, **more):
    return FeatureSet(
        normal(seed, n, 4), torch.arange(n) % 3, torch.arange(n) + 1000 * seed, **more
    )


REAL, TRAIN = some(1, 240), some(2, 90)
FAKE = some(3, 180, logits=normal(4, 180, 3), imagenet=normal(5, 180, 1008))


def names(found):
    return {gap.name for gap in found.missing}


def test_the_numbers_are_those_of_the_metrics():
    steps: list[int] = []
    found = measure(REAL, FAKE, TRAIN, COUNTS, step=lambda: steps.append(1))
    assert len(steps) == num_steps(3), "a bar that shows them ends at its end"
    assert (found.images, found.omega, found.num_images) == ("here", 0.8, 180)
    assert found.fid.value == pytest.approx(fid(REAL.pool, FAKE.pool), rel=1e-6)
    assert found.kid.value == pytest.approx(kid(REAL.pool, FAKE.pool), rel=1e-4)
    curve = prd(REAL.pool, FAKE.pool, 3)
    assert (found.f8, found.f_eighth) == (curve.f8, curve.f_eighth)
    assert len(found.prd_precision) == len(found.prd_recall) == 1001
    assert found.prd_note == curve.note()
    assert found.inception_score == inception_score_of_logits(FAKE.imagenet)
    hits = FAKE.logits.argmax(1) == FAKE.labels
    assert found.fidelity.value == pytest.approx(hits.double().mean().item())
    sides = (
        LabelledFeatures(REAL.pool, REAL.labels),
        LabelledFeatures(FAKE.pool, FAKE.labels, hits),
    )
    refer = make_reference(REAL, TRAIN, COUNTS)
    assert found.table == class_table(*sides, COUNTS, reference=refer)
    assert found.sliced_wasserstein == found.table.pooled[0].sliced_wasserstein
    assert found.fld == found.table.pooled[0].fld
    assert found.shown == tuple(torch.bincount(FAKE.logits.argmax(1)).tolist())
    copies = memorisation(TRAIN.pool, TRAIN.labels, FAKE.pool, FAKE.labels, COUNTS)
    assert found.memorisation == copies.groups
    assert found.missing == ()


def test_precision_and_recall_are_of_equal_numbers_of_images():
    found = measure(REAL, FAKE, None, COUNTS, seed=7)
    rows = torch.randperm(240, generator=torch.Generator().manual_seed(7))[:180]
    scores = manifold_scores(REAL.pool[rows], FAKE.pool, 5)
    assert (found.precision, found.recall) == (scores.precision, scores.recall)
    assert (found.density, found.coverage) == (scores.density, scores.coverage)


def test_what_too_few_images_do_not_give_says_why_and_leaves_the_rest():
    few = FeatureSet(FAKE.pool[:5], FAKE.labels[:5], FAKE.hashes[:5], FAKE.logits[:5])
    found = measure(REAL, few, TRAIN, COUNTS)
    assert names(found) == {
        *("fid", "precision", "recall", "density", "coverage"),
        *("f8", "f_eighth", "inception_score"),
    }
    reasons = {gap.name: gap.reason for gap in found.missing}
    assert "2 groups or more" in reasons["fid"] and "more than 5" in reasons["recall"]
    assert "no ImageNet classes" in reasons["inception_score"]
    assert found.recall is None and found.f8 is None and found.prd_precision == ()
    assert found.kid is not None and found.fidelity is not None
    assert len(found.table.classes) == 3 and len(found.memorisation) == 4


def test_images_without_labels_have_all_that_needs_none():
    found = measure(REAL, replace(FAKE, labels=-torch.ones(180).long()), TRAIN, COUNTS)
    assert names(found) == {"fidelity", "table", "fld"}
    assert found.table.classes == found.table.pooled == ()
    known = measure(REAL, FAKE, TRAIN, COUNTS)
    assert found.fid == known.fid and found.memorisation[0] == known.memorisation[0]
    assert [row.num_images for row in found.memorisation] == [180, 0, 0, 0]


def test_a_classifier_of_other_classes_gives_no_fidelity_but_says_so():
    found = measure(REAL, replace(FAKE, logits=normal(4, 180, 5)), TRAIN, COUNTS)
    assert names(found) == {"fidelity"}
    assert "knows 5 classes" in found.missing[0].reason
    assert found.table.classes[0].fidelity is None


def test_features_that_are_no_numbers_give_reasons_and_no_crash():
    broken = replace(FAKE, pool=FAKE.pool.clone().index_fill_(0, torch.tensor([3]), torch.nan))
    found = measure(REAL, broken, TRAIN, COUNTS)
    assert {"fid", "kid", "recall", "f8", "table", "memorisation"} <= names(found)
    assert any("non-finite" in gap.reason for gap in found.missing)


def test_held_out_images_are_those_whose_pixels_were_not_trained_on():
    hashes = torch.cat([TRAIN.hashes[:40], REAL.hashes[40:]])
    real = replace(REAL, hashes=hashes)
    rows = torch.arange(40, 240)
    assert torch.equal(held_out(TRAIN, real), rows)
    expected = memorisation(
        TRAIN.pool, TRAIN.labels, REAL.pool[rows], REAL.labels[rows], COUNTS
    )
    assert held_out_copies(TRAIN, real, COUNTS) == expected.groups
    assert held_out_copies(TRAIN, TRAIN, COUNTS) == ()


def test_a_reference_that_sets_share_changes_no_number_and_prepares_the_real_side_once(
    monkeypatch,
):
    prepared, init = [], FrechetTo.__init__

    def counted(self, features, *weights):
        prepared.append(len(features))
        init(self, features, *weights)

    others = replace(FAKE, pool=FAKE.pool + 0.5)
    alone = [measure(REAL, fake, None, COUNTS) for fake in (FAKE, others)]
    monkeypatch.setattr(FrechetTo, "__init__", counted)
    shared = Reference(REAL.pool, REAL.labels, COUNTS)
    found = [measure(REAL, f, None, COUNTS, reference=shared) for f in (FAKE, others)]
    assert found == alone
    assert prepared.count(240) == 1, "all real images"
    assert len(prepared) == 1 + 3 + 2 * 3, "all, three groups, and three classes a set"
    assert found[0].table.pooled[0].fid == found[0].fid and found[0].fid != found[1].fid


def test_head_middle_and_tail_are_shown():
    counts = [5, 900, 40, 41, 800, 7, 42, 30, 700, 6]
    assert shown_classes(counts) == (1, 4, 3, 2, 9, 0)
    assert shown_classes([3, 9, 1]) == (1, 0, 2)
    assert shown_classes([1] * 7) == (0, 1, 2, 3, 5, 6)


def test_a_gpu_without_the_memory_is_no_missing_number(monkeypatch):
    """It is for the caller to take another device."""

    def full(*sides, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "equal_manifold", full)
    with pytest.raises(torch.OutOfMemoryError):
        measure(REAL, FAKE, TRAIN, COUNTS)


def test_the_floor_is_of_real_images_of_each_class_that_are_on_neither_side_twice():
    chosen = stand_ins(REAL.labels, 90)
    assert [int((chosen & (REAL.labels == c)).sum()) for c in range(3)] == [30] * 3
    labels = torch.tensor([0] * 100 + [1] * 9 + [2])
    few = stand_ins(labels, 300)
    assert [int((few & (labels == c)).sum()) for c in range(3)] == [50, 4, 0], "half at most"
    assert torch.equal(few, stand_ins(labels, 300)) and not few.all()


def test_the_floor_is_what_the_numbers_say_of_real_images():
    real = replace(REAL, logits=normal(4, 240, 3))
    found, shuffled = real_floors(real, 90, COUNTS)
    chosen = stand_ins(real.labels, 90)
    assert (found.images, found.num_images) == ("real images", 90)
    assert found.fid.value == pytest.approx(fid(real.pool[~chosen], real.pool[chosen]))
    assert found.recall is not None and found.table.pooled[0].recall == found.recall
    assert not any(one.is_known for one in (found.fid, found.kid, found.sliced_wasserstein))
    hits = (real.logits.argmax(1) == real.labels)[chosen]
    assert found.fidelity.value == pytest.approx(hits.double().mean().item())
    assert names(found) == {"fld", "memorisation", "inception_score"}
    assert measure(REAL, FAKE, TRAIN, COUNTS).fid.value < 3 * found.fid.value
    assert shuffled.images == "labels shuffled" and shuffled.fid == found.fid


def test_chance_is_real_images_under_other_labels():
    """Classes that lie apart: of all together nothing changes, of a class everything."""
    shift = 10.0 * REAL.labels[:, None]
    real = replace(REAL, pool=REAL.pool + shift, logits=torch.eye(3)[REAL.labels])
    floor, chance = real_floors(real, 120, COUNTS)
    assert (chance.recall, chance.f8) == (floor.recall, floor.f8)
    assert floor.fidelity.value == 1 and chance.fidelity.value == pytest.approx(1 / 3, abs=0.1)
    made = real.pool[stand_ins(real.labels, 120)]
    y = torch.arange(240)[stand_ins(real.labels, 120)] % 3
    mixed = y[torch.randperm(120, generator=torch.Generator().manual_seed(0))]
    rest = real.at(~stand_ins(real.labels, 120))
    for c, (known, row) in enumerate(
        zip(floor.table.classes, chance.table.classes, strict=True)
    ):
        assert known.num_fake == row.num_fake == 40
        expected = sliced_wasserstein(rest.pool[rest.labels == c], made[mixed == c])
        assert row.sliced_wasserstein.value == pytest.approx(expected)
        assert row.sliced_wasserstein.value > 20 * known.sliced_wasserstein.value
