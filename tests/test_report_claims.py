from dataclasses import replace

import pytest
from report_tools import around, example

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.evaluation.report.claims import copying, headline, scope
from cbdm_scale.evaluation.report.compare import comparison, fair, incomparable
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.metrics.per_class import ClassTable


def with_best(evaluation, **changes):
    """The evaluation with one set, changed."""
    return replace(evaluation, sets=(replace(evaluation.best, **changes),))


def with_groups(evaluation, **changes):
    """The same, its pooled rows changed: few={...}, many={...}."""
    table = evaluation.best.table
    pooled = tuple(replace(row, **changes.get(row.group or "all", {})) for row in table.pooled)
    return with_best(evaluation, table=ClassTable(table.classes, pooled))


@pytest.fixture(scope="module")
def one():
    return example(12, omegas=(1.0,))


def equal_fid(value):
    return {"fid": around(value, 0.05 * value), "fid_images": (400, 400)}


def test_the_headline_says_fid_rare_classes_and_fidelity(one):
    evaluation = with_best(one, fid=Interval(4.5, 4.1, 4.9), fidelity=Interval(0.82, 0.8, 0.84))
    evaluation = with_groups(
        evaluation,
        few=equal_fid(20.0) | {"kid": around(0.02, 0.001)},
        many=equal_fid(1.52) | {"kid": around(0.001, 0.0005)},
    )
    assert headline(evaluation) == (
        "FID 4.5 [4.1, 4.9]; rare classes are at 20.0, 13 times the frequent ones at 1.52; "
        "82 % of images show the class that was asked for."
    )


@pytest.mark.parametrize(
    ("few", "many", "says"),
    [
        ((30.0, 0.03), (20.0, 0.02), "at 30.0, 1.5 times the frequent ones at 20.0"),
        ((22.0, 0.022), (20.0, 0.02), "at 22.0, worse than frequent ones at 20.0"),
        ((18.0, 0.018), (20.0, 0.02), "at 18.0, better than frequent ones at 20.0"),
        (
            (30.0, 0.0201),
            (20.0, 0.02),
            "at 30.0, frequent ones at 20.0, a difference that noise",
        ),
        ((18.0, 0.03), (20.0, 0.02), "at KID × 1000 30.0, 1.5 times the frequent ones"),
    ],
)
def test_rare_classes_are_worse_only_where_intervals_of_kid_part(one, few, many, says):
    rows = {
        name: equal_fid(fid) | {"kid": around(kid, 0.0005)}
        for name, (fid, kid) in {"few": few, "many": many}.items()
    }
    assert says in headline(with_groups(one, **rows))


def test_fids_of_unequal_numbers_of_images_give_no_ratio(one):
    evaluation = with_groups(
        one,
        few={"fid": around(50.0, 1.0), "fid_images": (100, 100), "kid": around(0.02, 0.001)},
        many={"fid": around(2.0, 0.1), "fid_images": (900, 900), "kid": around(0.004, 0.001)},
    )
    assert "rare classes are at KID × 1000 20.0, 5.0 times" in headline(evaluation)


def test_without_fid_the_headline_is_of_kid_and_without_both_says_so(one):
    no_fid = with_best(one, fid=None, kid=Interval(0.0031, 0.0029, 0.0033))
    assert headline(no_fid).startswith("KID × 1000 3.1 [2.9, 3.3], no FID; ")
    nothing = with_best(one, fid=None, kid=None, fidelity=None, table=ClassTable((), ()))
    assert headline(nothing) == "Neither FID nor KID could be computed."


def test_the_headline_names_the_guidance_where_there_was_a_choice(one):
    assert "at guidance" not in headline(one)
    assert "at guidance 0.8" in headline(example(4, omegas=(0.0, 0.8, 1.6)))


def verdicts(ours, theirs):
    return {
        claim.text.split(" is ")[0].split(" does ")[0]: claim
        for claim in comparison(ours, theirs)
    }


def test_better_and_worse_are_said_only_of_intervals_that_do_not_overlap(one):
    ours = with_best(one, fid=Interval(4.5, 4.1, 4.9), fidelity=Interval(0.8, 0.78, 0.82))
    better = with_best(one, fid=Interval(3.5, 3.2, 3.8), fidelity=Interval(0.9, 0.88, 0.92))
    worse = with_best(one, fid=Interval(5.5, 5.2, 5.8), fidelity=Interval(0.6, 0.58, 0.62))
    even = with_best(one, fid=Interval(5.2, 4.9, 5.5), fidelity=Interval(0.83, 0.82, 0.84))
    for theirs, kind in ((worse, "good"), (better, "bad"), (even, "even")):
        found = verdicts(ours, theirs)
        assert found["FID"].kind == found["Label fidelity"].kind == kind
        assert ("intervals overlap" in found["FID"].text) == (kind == "even")
    assert verdicts(ours, worse)["FID"].text == (
        "FID is better: 4.5 (4.1 to 4.9) here, 5.5 (5.2 to 5.8) there."
    )
    assert "worse: 80 % (78 to 82 %) here" in verdicts(ours, better)["Label fidelity"].text


def test_rare_classes_of_two_runs_are_compared(one):
    theirs = with_groups(one, few={"kid": around(0.9, 0.01)})
    assert verdicts(one, theirs)["KID × 1000 of rare classes"].kind == "good"


def test_a_number_that_one_run_lacks_gets_no_verdict(one):
    assert "FID" not in verdicts(one, with_best(one, fid=None))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"extractor_fingerprint": "0"}, "features of other weights"),
        ({"resize": "bicubic"}, "another resize rule (bilinear here, bicubic there)"),
        ({"dataset_fingerprint": "0"}, "another data set"),
        ({"num_real": 7}, "another number of real images (1,200 here, 7 there)"),
    ],
)
def test_runs_that_were_measured_otherwise_are_not_compared(one, change, says):
    theirs = replace(one, **change)
    (claim,) = comparison(one, theirs)
    assert claim.kind == "note" and says in claim.text
    assert fair(one, theirs) is None
    assert not incomparable(one, one) and fair(one, one) == one


def test_of_another_number_of_images_only_unbiased_numbers_stand_beside(one):
    theirs = with_best(one, num_images=77)
    assert "FID is not compared" in comparison(one, theirs)[0].text
    beside = fair(one, theirs).best
    assert beside.kid and beside.fidelity
    assert beside.fid is beside.recall is beside.f8 is beside.inception_score is None
    assert beside.prd_precision == ()


def test_class_fids_of_another_number_of_images_do_not_stand_beside(one):
    table = one.best.table
    rows = tuple(replace(row, fid_images=(60, 60)) for row in table.classes)
    beside = fair(one, with_best(one, table=ClassTable(rows, table.pooled))).best.table
    assert all(row.fid is None and row.kid for row in beside.classes)
    assert beside.pooled == table.pooled


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trained_images": 7_200}, "seen 12,800,000, the other 7,200: "),
        ({"trained_images": None}, "the other an unknown number: "),
        ({"weights": "raw"}, "Other weights: ema here, raw there."),
    ],
)
def test_runs_of_unlike_networks_are_compared_with_a_note_first(one, change, says):
    first, *verdicts = comparison(one, replace(one, **change))
    assert first.kind == "note" and says in first.text
    assert verdicts and all(claim.kind != "note" for claim in verdicts)
    assert all(claim.kind != "note" for claim in comparison(one, one))


def copies(*shares, n=1000):
    return tuple(
        GroupMemorisation(group, n, 1.0, share)
        for group, share in zip((None, *GROUPS), shares, strict=True)
    )


def test_copies_are_reported_only_above_chance(one):
    def said(made, held):
        changed = with_best(one, memorisation=made)
        return copying(replace(changed, held_out_copies=held))

    chance = copies(0.01, 0.01, 0.01, 0.01)
    assert said(copies(0.012, 0.01, 0.01, 0.016), chance).kind == "good"
    more = said(copies(0.02, 0.01, 0.01, 0.08), chance)
    assert more.kind == "bad"
    assert "8.0 % of the images of rare classes" in more.text and "1.0 % of real" in more.text
    assert said(copies(0.02, 0.01, 0.01, 0.08), ()).kind == "note"
    assert "is not known" in said(copies(0.02, 0.01, 0.01, 0.08), ()).text
    assert said((), chance) is None
    noise = with_best(one, memorisation=chance, fidelity=Interval(1 / 12))
    claim = copying(replace(noise, held_out_copies=chance))
    assert claim.kind == "note", "that noise copies nothing is no praise"


def test_the_small_classifier_compares_with_no_paper(one):
    assert "compare with no paper" in scope(replace(one, extractor="classifier")).text
    assert "compare with no paper" in scope(replace(one, extractor="classifier:a/b")).text
    assert "no FID in the paper" in scope(replace(one, extractor="dinov2")).text


def test_inception_compares_with_the_paper_only_with_its_rule_and_number(one):
    few = scope(one).text
    assert "1,200 generated images" in few and "not with those of 50,000" in few
    whole = with_best(one, num_images=50_000)
    assert "compare with the paper's where" in scope(whole).text
    assert (
        "clean-fid's of as many images, not with the paper's"
        in scope(replace(whole, resize="bicubic")).text
    )
