import pytest
import torch
from feature_tools import normal

from cbdm_scale.data.groups import class_groups
from cbdm_scale.metrics import per_class as module
from cbdm_scale.metrics.features import Features
from cbdm_scale.metrics.fid import FrechetTo, fid
from cbdm_scale.metrics.groups import GroupScores, fid_by_group
from cbdm_scale.metrics.intervals import fid_interval
from cbdm_scale.metrics.kid import kid
from cbdm_scale.metrics.per_class import Whole, class_table
from cbdm_scale.metrics.precision_recall import manifold_scores
from cbdm_scale.metrics.reference import LabelledFeatures, Reference
from cbdm_scale.metrics.sliced_wasserstein import sliced_wasserstein

COUNTS = [300, 200, 150, 60, 50, 40, 15, 10, 5]  # three of each group


def labelled(seed, sizes, hits=None):
    y = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    x = normal(seed, len(y), 3) + y[:, None]
    return LabelledFeatures(x, y, hits)


def test_every_class_and_group_has_a_row_in_order():
    table = class_table(labelled(0, [60] * 9), labelled(1, [55] * 9), COUNTS)
    assert [row.label for row in table.classes] == list(range(9))
    assert [row.group for row in table.classes] == ["many"] * 3 + ["medium"] * 3 + ["few"] * 3
    assert [row.group for row in table.pooled] == [None, "many", "medium", "few"]
    assert [row.num_train for row in table.pooled] == [830, 650, 150, 30]
    assert [row.num_fake for row in table.pooled] == [495, 165, 165, 165]


def test_class_fid_is_of_equally_many_images_and_kid_of_all():
    real, fake = labelled(0, [60, 80, 400] + [70] * 6), labelled(1, [90] * 9)
    table = class_table(real, fake, COUNTS)
    assert {row.fid_images for row in table.classes} == {(60, 60)}
    only = torch.tensor([2])
    x, y = real.of(only).x, fake.of(only).x
    assert table.classes[2].kid.value == pytest.approx(kid(x, y), rel=1e-5)
    rng = torch.Generator().manual_seed(0)
    mine = x[torch.randperm(400, generator=rng)[:60]]
    rng.manual_seed(0)
    assert table.classes[2].fid.value == fid(mine, y[torch.randperm(90, generator=rng)[:60]])


def test_below_50_images_there_is_no_fid_but_a_reason_and_a_kid():
    real, fake = labelled(0, [49, 50] + [100] * 7), labelled(1, [100] * 9)
    table = class_table(real, fake, COUNTS)
    first, second, third, *_ = table.classes
    assert first.fid is None and first.fid_images is None
    assert "49 real and 100 generated images: FID needs at least 50" in first.fid_missing
    assert first.kid is not None and first.kid.low < first.kid.high
    assert second.fid is not None and second.fid_missing is None
    assert third.fid_images == (50, 50)  # the 49 do not pull the others down
    assert class_table(real, fake.of(torch.tensor([0, 1, 2])), COUNTS).classes[8].kid is None


def test_pooled_fid_is_that_of_training():
    groups = class_groups(COUNTS)
    real, fake = labelled(0, [80] * 9), labelled(1, [60] * 9)
    sums = []
    for side in (real, fake):
        scores = GroupScores(groups, 3)
        scores.add(Features(side.x, None), side.y)
        sums.append(scores)
    known = fid_by_group(*sums)
    pooled = {row.group: row for row in class_table(real, fake, COUNTS).pooled}
    assert pooled[None].fid.value == pytest.approx(known["fid"], rel=1e-6)
    for group in ("many", "medium", "few"):
        assert pooled[group].fid.value == pytest.approx(known[f"fid_{group}"], rel=1e-6)


def test_a_bad_class_stands_out():
    real, fake = labelled(0, [60] * 9), labelled(1, [60] * 9)
    fake.x[fake.y == 7] += 2
    table = class_table(real, fake, COUNTS)
    worst = max(table.classes, key=lambda row: row.kid.value)
    assert worst.label == 7 == max(table.classes, key=lambda row: row.fid.value).label
    others = [row.kid.high for row in table.classes if row.label != 7]
    assert worst.kid.low > max(others)
    assert table.pooled[3].kid.value > 10 * table.pooled[1].kid.value


def test_fidelity_is_by_class_and_group_and_none_where_nobody_judged():
    fake = labelled(1, [60] * 9)
    judged = LabelledFeatures(fake.x, fake.y, fake.y != 4)
    table = class_table(labelled(0, [60] * 9), judged, COUNTS)
    assert [row.fidelity.value for row in table.classes] == [1] * 4 + [0] + [1] * 4
    medium = table.pooled[2].fidelity
    assert medium.value == pytest.approx(2 / 3)
    plain = class_table(labelled(0, [60] * 9), fake, COUNTS)
    assert all(row.fidelity is None for row in plain.classes + plain.pooled)


def test_kid_of_large_groups_is_of_a_random_part(monkeypatch):
    real, fake = labelled(0, [60] * 9), labelled(1, [60] * 9)
    whole = class_table(real, fake, COUNTS).pooled[0].kid
    monkeypatch.setattr(module, "MOST", 100)
    part = class_table(real, fake, COUNTS).pooled[0].kid
    assert part.value != whole.value and part.high - part.low > whole.high - whole.low


def test_labels_that_do_not_fit_are_refused():
    real = labelled(0, [60] * 9)
    with pytest.raises(ValueError, match=r"generated labels must be in 0\.\.8"):
        class_table(real, LabelledFeatures(real.x, real.y + 1), COUNTS)
    with pytest.raises(ValueError, match=r"540 images but labels or hits \(3,\)"):
        LabelledFeatures(real.x, real.y[:3])


def test_class_and_group_fids_have_the_interval_of_ten_groups_that_of_all_of_twenty():
    real, fake = labelled(0, [60] * 9), labelled(1, [60] * 9)
    table = class_table(real, fake, COUNTS, seed=4)
    only = torch.tensor([2])
    assert table.classes[2].fid == fid_interval(real.of(only).x, fake.of(only).x, 10, 4)
    many = torch.tensor([0, 1, 2])
    assert table.pooled[1].fid == fid_interval(real.of(many).x, fake.of(many).x, 10, 4)
    assert table.pooled[0].fid == fid_interval(real.x, fake.x, 20, 4)


def test_what_is_known_of_all_images_is_not_computed_again(monkeypatch):
    real, fake = labelled(0, [60] * 9), labelled(1, [55] * 9)
    plain, prepared = class_table(real, fake, COUNTS), []
    refer = Reference(real.x, real.y, COUNTS)
    keep = type(refer.to(None)).__init__

    def counted(self, features, *weights):
        prepared.append(len(features))
        keep(self, features, *weights)

    monkeypatch.setattr(FrechetTo, "__init__", counted)
    known = Whole(plain.pooled[0].fid, plain.pooled[0].kid)
    for _ in range(2):
        assert class_table(real, fake, COUNTS, reference=refer, whole=known) == plain
    assert prepared == [55] * 9 + [180] * 3 + [55] * 9, "a group's only once, all images' never"


def test_the_sliced_distance_and_recall_are_of_the_row_s_own_images():
    real, fake = labelled(0, [60] * 9), labelled(1, [40] * 9)
    table = class_table(real, fake, COUNTS)
    one = torch.tensor([2])
    expected = sliced_wasserstein(real.of(one).x, fake.of(one).x)
    row = table.classes[2]
    assert row.sliced_wasserstein.value == pytest.approx(expected, rel=1e-6)
    assert row.sliced_wasserstein.low < expected < row.sliced_wasserstein.high
    assert row.recall is None, "of groups alone"
    few = torch.tensor([6, 7, 8])
    a, b = real.of(few).some(120, 0), fake.of(few)
    assert table.pooled[3].recall == manifold_scores(a.x, b.x).recall


def test_fld_of_a_group_is_the_mean_of_its_classes_where_half_of_them_have_one():
    real, fake, train = labelled(0, [60] * 9), labelled(1, [40] * 9), labelled(2, [20] * 9)
    held_out = torch.isin(real.y, torch.tensor([0, 1, 3, 6, 7])).nonzero().flatten()
    refer = Reference(real.x, real.y, COUNTS, train=train, held_out=held_out)
    table = class_table(real, fake, COUNTS, reference=refer)
    found = [row.fld for row in table.classes]
    assert [one is not None for one in found] == [c in (0, 1, 3, 6, 7) for c in range(9)]
    assert "at least 10 held-out images, got 0" in table.classes[2].fld_missing
    every, many, medium, few = table.pooled
    assert every.fld.value == pytest.approx(sum(f.value for f in found if f) / 5)
    assert few.fld.value == pytest.approx((found[6].value + found[7].value) / 2)
    half = ((found[6].high - found[6].low) ** 2 + (found[7].high - found[7].low) ** 2) / 16
    assert few.fld.high - few.fld.value == pytest.approx(half**0.5)
    assert medium.fld is None and "held-out" in medium.fld_missing
    assert "were not asked for" in class_table(real, fake, COUNTS).classes[0].fld_missing


def test_macro_and_worst_are_over_the_classes_that_have_the_number():
    real, fake = labelled(0, [60] * 9), labelled(1, [60] * 8 + [20])
    fake.x[fake.y == 7] += 2
    judged = LabelledFeatures(fake.x, fake.y, fake.y != 4)
    table = class_table(real, judged, COUNTS)
    fids = [row.fid.value for row in table.classes if row.fid]
    assert len(fids) == 8 and table.macro("fid") == pytest.approx(sum(fids) / 8)
    assert [table.worst(n).label for n in ("fid", "kid", "sliced_wasserstein")] == [7] * 3
    assert table.worst("fidelity").label == 4 and table.macro("fidelity") == 8 / 9
    assert table.macro("fld") is None and table.worst("fld") is None


def test_without_intervals_the_numbers_are_the_same():
    real, fake = labelled(0, [60] * 9), labelled(1, [60] * 9)
    plain, quick = (class_table(real, fake, COUNTS, intervals=i) for i in (True, False))
    for a, b in zip(plain.classes + plain.pooled, quick.classes + quick.pooled, strict=True):
        for name in ("fid", "kid", "sliced_wasserstein"):
            one, two = getattr(a, name), getattr(b, name)
            assert one.is_known and not two.is_known
            assert one.value == pytest.approx(two.value, rel=1e-4)
