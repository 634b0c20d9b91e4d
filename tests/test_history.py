"""Which checkpoint is the best, and when the tail counts as being lost."""

from dataclasses import replace

import pytest

from cbdm_scale.evaluation.history import (
    ScorePoint,
    best_point,
    check_best_by,
    end_of_patience,
    narrowed,
    tail_warning,
)


def points(fids, tails):
    pairs = zip(fids, tails, strict=True)
    scores = [{"fid": f} if t is None else {"fid": f, "fid_few": t} for f, t in pairs]
    return [ScorePoint(100 * (i + 1), s) for i, s in enumerate(scores)]


# fmt: off
CASES = [
    # FID of all,           of the few,              warned?
    ([9, 8, 7, 6],          [20, 18, 16, 14],        False),  # both fall
    ([9, 8, 7, 6],          [20, 15, 17, 19],        True),   # the tail rises, the whole falls
    ([9, 8, 7],             [20, 15, 17],            False),  # once is not enough
    ([9, 8, 7, 6],          [20, 15, 17, 15.5],      False),  # it came back
    ([9, 8, 7, 6],          [20, 15, 15.7, 15.7],    False),  # within 5 %
    ([9, 8, 7, 6],          [20, 15, 15.8, 15.8],    True),   # just beyond
    ([9, 8, 8.5, 9],        [20, 15, 17, 19],        False),  # all gets worse: no trade
    ([9, 8, 7, 8],          [20, 15, 17, 19],        False),  # no lower than then
    ([9, 8, 7, 6, 5],       [20, 15, 19, 17, 18],    True),   # up and down, but far above
    ([9, 8, 7, 6, 5],       [20, 15, 19, 17, 14],    False),  # a new lowest
    ([9, 8, 7, 6],          [15, 15, 17, 19],        True),   # twice the lowest: the first
    ([9, 8, 7, 6],          [None] * 4,              False),  # nothing to go by
    ([9, 8, 7, 6, 5],       [20, 15, 17, None, 19],  True),   # one without is passed over
    ([],                    [],                      False),
    ([9],                   [20],                    False),
]
# fmt: on


@pytest.mark.parametrize(("fids", "tails", "warned"), CASES)
def test_a_warning_needs_a_tail_that_rises_twice_while_the_whole_falls(fids, tails, warned):
    assert (tail_warning(points(fids, tails)) is not None) == warned


def test_the_warning_names_where_the_tail_was_best():
    found = tail_warning(points([9, 8, 7, 6], [20, 15, 17, 19]))
    assert (found.before.num_seen, found.now.num_seen) == (200, 400)
    assert str(found) == (
        "FID of the few classes rose from 15.0 (at 200 images) to 19.0 (at 400), while FID "
        "fell from 8.0 to 6.0"
    )


def test_the_best_is_the_lowest_by_the_score_asked_for_and_the_earliest_of_equals():
    some = points([9, 8, 7, 7], [20, 15, 17, 15])
    assert best_point(some, "fid").num_seen == 300
    assert best_point(some, "fid_few").num_seen == 200
    assert best_point(points([9, 8], [None, 3]), "fid_few").num_seen == 200
    assert best_point(points([9], [None]), "fid_few") is None
    assert best_point([], "fid") is None


@pytest.mark.parametrize(
    "scores, patience, best, last",
    [
        ([9, 8, 8, 9], 2, 200, 400),
        ([9, 8, 8, 7, 9], 2, None, None),  # it came in time
        ([9, 8, 9, None, 9], 2, 200, 500),  # one without is passed over
        ([9, 8, 9, 9, 1, 1], 2, 200, 400),  # what comes after takes nothing back
        ([1, 2, 3], 3, None, None),
        ([1, 2, 3], 0, None, None),
        ([], 1, None, None),
    ],
)
def test_a_run_ends_after_so_many_evaluations_in_a_row_without_a_lower_score(
    scores, patience, best, last
):
    found = end_of_patience(points([0] * len(scores), scores), "fid_few", patience)
    assert (found is None) == (best is None)
    if found:
        assert (found[0].num_seen, found[1].num_seen) == (best, last)


def test_copies_beyond_chance_warn_when_two_evaluations_in_a_row_have_them():
    some = points([9, 9, 9, 9], [5, 4, 3, 2])
    marked = [
        replace(p, scores=p.scores | {"copies_few": 0.3}, held_out_copies=0.1) for p in some
    ]
    assert tail_warning([*some[:3], marked[3]]) is None
    assert tail_warning([some[0], marked[1], some[2], marked[3]]) is None
    found = tail_warning([*some[:2], *marked[2:]])
    assert found.kind == "copied" and found.before.num_seen == 400
    assert tail_warning(points([9, 8, 7, 6], [20, 15, 17, 19])).kind == "lost"


def varied(*pairs, n=150, fid=9.0):
    """(FID of the few, their recall) of each evaluation, of so many real images."""
    return [
        ScorePoint(100 * (i + 1), {"fid": fid, "fid_few": few, "recall_few": recall}, None, n)
        for i, (few, recall) in enumerate(pairs)
    ]


DIGITS = (15.3, 0.91), (17.6, 0.86), (15.4, 0.71), (11.7, 0.51), (13.0, 0.30)
"""Of DDPM on the digits at strength 1.5, after 48, 72, 96, 144 and 192 thousand images."""

# fmt: off
LESS = [
    # FID and recall of the few,                    which have lost variety to which
    ([(15, 0.9), (15.4, 0.6)],                      {200: 100}),
    ([(15, 0.9), (11, 0.6)],                        {}),  # something was gained for it
    ([(15.7, 0.9), (15, 0.6)],                      {200: 100}),  # within 5 %
    ([(15.8, 0.9), (15, 0.6)],                      {}),
    ([(15, 0.9), (15, 0.85)],                       {}),  # chance
    ([(60, 0.99), (15, 0.9), (14.5, 0.7)],          {300: 200}),  # noise covers everything
    ([(15, 0.9), (15, 0.95), (15, 0.6), (9, 0.6)],  {300: 200}),
    ([(15, 0.6), (15, 0.9)],                        {}),
    (DIGITS,                                        {300: 100, 500: 400}),
]
# fmt: on


@pytest.mark.parametrize(("pairs", "less"), LESS)
def test_variety_is_lost_where_recall_falls_beyond_chance_and_fid_gains_nothing(pairs, less):
    found = narrowed(varied(*pairs))
    assert {at: before.num_seen for at, before in found.items()} == less


def test_few_images_or_no_recall_tell_nothing_of_variety():
    pairs = (15, 0.9), (15, 0.7)
    assert narrowed(varied(*pairs)) and not narrowed(varied(*pairs, n=30))
    assert not narrowed(varied(*pairs, n=0)) and not narrowed(points([9, 8], [15, 15]))


def test_a_loss_of_variety_warns_when_two_evaluations_in_a_row_have_it():
    first, *rest = varied((15, 0.9), (15.2, 0.6), (15.1, 0.6), (9, 0.6))
    assert tail_warning([first, rest[0]]) is None, "once is not enough"
    found = tail_warning([first, *rest[:2]])
    assert str(found) == (
        "the few classes lose variety: their recall fell from 0.90 (at 100 images) to 0.60 (at "
        "300), and their FID went from 15.0 to 15.1"
    )
    assert found.kind == "narrowed" and tail_warning([first, *rest]) is None
    copied = [replace(p, held_out_copies=0.1) for p in rest[:2]]
    copied = [replace(p, scores=p.scores | {"copies_few": 0.3}) for p in copied]
    assert tail_warning([first, *copied]).kind == "copied", "which is worse"


def test_by_fid_of_the_few_a_loss_of_variety_is_no_better():
    some = varied((15, 0.9), (14.9, 0.6), (14.8, 0.6), (14.7, 0.9))
    less = narrowed(some)
    assert list(less) == [200, 300]
    assert best_point(some[:3], "fid_few", less).num_seen == 100
    assert best_point(some, "fid_few", less).num_seen == 400
    best, last = end_of_patience(some, "fid_few", 2)
    assert (best.num_seen, last.num_seen) == (100, 300)
    assert end_of_patience(some, "fid_few", 3) is None
    falling = [replace(p, scores=p.scores | {"fid": 9.0 - i}) for i, p in enumerate(some)]
    assert end_of_patience(falling, "fid", 1) is None, "FID of all counts no variety"


def test_a_score_that_could_never_be_had_is_refused_with_the_way_out():
    three = "many", "medium", "few"
    check_best_by("fid", "none", three[:2], (9, 9), 2)
    check_best_by("fid_few", "classifier", three, (9, 9, 2), 6)
    with pytest.raises(ValueError, match=r"eval.extractor none.* --eval.best-by fid\.$"):
        check_best_by("fid_few", "none", three, (9, 9, 9), 100)
    with pytest.raises(ValueError, match=r"only many, medium\. Try --eval.best-by fid\.$"):
        check_best_by("fid_few", "classifier", ("medium", "many"), (9, 9), 100)
    with pytest.raises(ValueError, match=r"1 of eval.num_images \(5\).* --eval.num-images 6"):
        check_best_by("fid_few", "classifier", three, (9, 9, 9), 5)
    with pytest.raises(ValueError, match=r"there are 1 real ones"):
        check_best_by("fid_few", "classifier", three, (9, 9, 1), 9)
