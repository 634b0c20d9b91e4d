"""What is compared, when, and what comes next: the rules of a search, without a cluster."""

import json
import math
from dataclasses import replace

import pytest

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.presets import PRESETS, preset
from cbdm_scale.storage.folder import Storage
from tune.analysis import (
    Finalist,
    choose_finalists,
    compare,
    finalists,
    mean_interval,
    statement,
)
from tune.identity import describe_search
from tune.objective import best_strength, front, scalar, values_at
from tune.options import SearchConfig, all_rungs, searched_row, with_recall
from tune.sampler import importance, next_values, random_values
from tune.schedule import even_rungs, expected_images, rungs
from tune.space import SPACE, Choice, Range, fixed, make_space
from tune.trials import Rung, Trial, TrialStore

DIGITS = preset("digits_lt", "cbdm")


def scores(fid, few=None):
    few = fid if few is None else few
    recall = 1 / (1 + fid)
    return {"1.0": {"fid": fid, "fid_many": fid / 2, "fid_few": few, "recall": recall}}


def trial(number, fid, kind="search", status="finished", images=1200, **more):
    params = {"loss.tau": 0.5, "loss.p_uncond": 0.1, "loss.label_power": 0.5}
    params |= more.pop("params", {})
    at = tuple(Rung(i, scores(fid * 1200 / i), 1.0, i) for i in (200, 600, 1200) if i <= images)
    return Trial(
        id=f"t{number:03d}", kind=kind, params=params, seed=0, status=status, rungs=at, **more
    )


def make_store(tmp_path, *trials):
    made = TrialStore(Storage(str(tmp_path)))
    for one in trials:
        made.put(one)
    return made


@pytest.mark.parametrize("row", sorted(PRESETS))
def test_every_row_has_what_the_space_names(row):
    assert make_space((), searched_row(PRESETS[row]())) == SPACE


@pytest.mark.parametrize(
    ("word", "option", "expected"),
    [
        ("loss.gamma=0.1:1", "loss.gamma", Range(0.1, 1)),
        ("loss.gamma=log:0.1:1", "loss.gamma", Range(0.1, 1, log=True)),
        ("loss.label_power=train,sqrt,bal", "loss.label_power", Choice((0.0, 0.5, 1.0))),
        ("loss.p-uncond=0.1,0.2", "loss.p_uncond", Choice((0.1, 0.2))),
        ("loss.gamma", "loss.gamma", Range(0.0625, 1.0, log=True)),
        ("loss.delta-fm", "loss.delta_fm", Range(0.01, 0.2, log=True)),
        ("loss.coral", "loss.coral", Range(0.1, 2, log=True)),
    ],
)
def test_a_dimension_reads_as_it_is_written(word, option, expected):
    assert make_space((word,), DIGITS)[option] == expected


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("loss.tua=0.1:1", "loss.tua is no option of a run. Did you mean loss.tau"),
        ("loss.tau=1:0.1", "is neither LOW:HIGH"),
        ("loss.tau=0:1", "loss.tau must be above 0"),
        ("loss.label_power=0:2", "loss.label_power must be from 0 to 1"),
        ("loss.tau=1", "loss.tau is what is searched for"),
        ("train.log_every=1:5", "takes a whole number|does not change what is learnt"),
        ("model.dropout", "has no usual range"),
    ],
)
def test_a_dimension_that_does_not_fit_is_named(word, words):
    with pytest.raises(ValueError, match=words):
        make_space((word,), DIGITS)


def test_one_value_is_fixed_and_not_searched():
    words = ("loss.p_uncond=0.2",)
    assert "loss.p_uncond" not in make_space(words, DIGITS)
    assert fixed(words) == {"loss.p_uncond": 0.2}


def test_rungs_are_whole_steps_and_end_with_the_run():
    assert rungs(48_000, 48, 3, 8_000) == (8_016, 24_000, 48_000)
    assert rungs(100, 48, 3, 100) == (144,)
    assert even_rungs(480, 48, 100) == (144, 288, 432, 480)
    config = searched_row(DIGITS)
    assert all_rungs(SearchConfig(), config)[-1] == config.train.total_images


def test_stopping_is_expected_to_save_images():
    assert expected_images(9, (10, 30, 90), 3) == 9 * 10 + 3 * 20 + 1 * 60


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trials": 1}, "trials must be at least 2"),
        ({"controls": 0}, "without a control nothing is known of tau"),
        ({"repeats": 1}, "no telling what is noise"),
    ],
)
def test_a_search_that_could_tell_nothing_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SearchConfig(**options)


def test_an_evaluation_counts_with_its_best_strength():
    found = {"0.5": {"fid": 9.0, "fid_few": 1.0}, "2.0": {"fid": 4.0, "fid_few": 4.0}}
    assert best_strength(found, "fid") == "2.0"
    assert best_strength(found, "fid_few") == "0.5"
    assert best_strength(found, "pareto") == "0.5"
    assert scalar((9.0, 1.0)) == pytest.approx(3.0)


def test_recall_counts_as_what_it_misses():
    found = {"0.5": {"fid": 4.0, "fid_few": 4.0, "recall": 0.5}}
    found["2.0"] = found["0.5"] | {"recall": 0.9}
    assert best_strength(found, "pareto_recall") == "2.0"
    assert values_at(found, "2.0", "pareto_recall") == pytest.approx((4.0, 4.0, 0.1))
    better = Finalist(trial(1, 4), (recalled(0.9, 1), recalled(0.8, 2)), "pareto_recall")
    worse = Finalist(trial(0, 4), (recalled(0.4, 1), recalled(0.3, 2)), "pareto_recall")
    (recall,) = (c for c in compare(better, worse) if c.metric == "recall")
    assert recall.verdict == "better"
    assert recall.difference.value == pytest.approx(-0.5)


def recalled(recall, seed):
    rung = Rung(1200, {"1.0": {"fid": 4.0, "fid_few": 4.0, "recall": recall}}, 1.0, 1200)
    return replace(trial(5, 4), seed=seed, rungs=(rung,))


def test_an_objective_with_recall_has_it_measured():
    asked = SearchConfig(objective="pareto_recall")
    base = searched_row(DIGITS)
    assert with_recall(asked, base).eval.num_stored == base.eval.num_images == 500
    none, own = (with_options(base, {"eval.recall_images": n}) for n in (0, 200))
    assert with_recall(asked, none).eval.recall_images == 500
    assert with_recall(asked, own).eval.recall_images == 200
    assert with_recall(SearchConfig(), none).eval.recall_images == 0
    with pytest.raises(ValueError, match=r"eval.recall_images must be 0, or 6 or more, got 5"):
        with_options(base, {"eval.recall_images": 5})


def test_the_front_holds_what_nothing_else_beats_in_both():
    assert front([(1, 4), (2, 2), (3, 3), (4, 1)]) == [0, 1, 3]


def test_asking_again_asks_the_same_and_another_trial_asks_another():
    known = [trial(i, 10 + i, params=random_values(SPACE, 0, i)) for i in range(9)]
    for searcher in ("tpe", "random"):
        first = next_values(SPACE, known, "fid", searcher, 0, 9)
        assert first == next_values(SPACE, known, "fid", searcher, 0, 9)
        assert first != next_values(SPACE, known, "fid", searcher, 0, 10)
        assert all(d.low <= first[o] <= d.high for o, d in SPACE.items())


@pytest.mark.parametrize("objective", ["fid", "fid_few", "pareto", "pareto_recall"])
def test_tpe_asks_nearer_to_where_the_objective_is_low(objective):
    """The objective is |log tau|: its lowest point is tau = 1."""

    def known(number, stopped):
        params = random_values(SPACE, 0, number)
        fid = 1 + abs(math.log(params["loss.tau"]))
        images = 200 if stopped else 1200
        status = "stopped" if stopped else "finished"
        return trial(number, fid, params=params, images=images, status=status)

    told = [known(i, stopped=i % 3 > 0) for i in range(30)]
    told.append(trial(30, 1.0, status="failed", images=0))

    def distance(searcher):
        asked = [next_values(SPACE, told, objective, searcher, 0, 40 + i) for i in range(8)]
        return sum(abs(math.log(values["loss.tau"])) for values in asked) / 8

    assert distance("tpe") < 0.7 * distance("random")


def test_importance_finds_the_parameter_that_matters():
    def known(number):
        params = random_values(SPACE, 0, number)
        return trial(number, 1 + params["loss.label_power"], params=params)

    shares = importance(SPACE, [known(i) for i in range(20)], "fid")
    assert max(shares, key=shares.__getitem__) == "loss.label_power"
    assert importance(SPACE, [known(0)], "fid") == {}


def test_records_are_read_as_it_was_written(tmp_path):
    took_over = ({"before": 600, "of": "t001", "params": {"loss.tau": 1.0}},)
    wrote = make_store(tmp_path, trial(0, 5.0), trial(1, 6.0, status="failed", reason="why"))
    wrote.put(trial(2, 7.0, exploits=took_over, run="other"))
    wrote.add_rung("t001", 2400, scores(3.0), 9.0, "running")
    read = TrialStore(Storage(str(tmp_path)))
    assert read.trials == wrote.trials
    assert read.trials["t001"].images == 2400


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda about: {}, "is damaged"),
        (lambda about: about | {"id": "../t000"}, r"is of the trial '../t000'"),
        (lambda about: about | {"rungs": [1]}, "is damaged"),
        (lambda about: [], "is damaged"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, change, words):
    make_store(tmp_path, trial(0, 5.0))
    (file,) = tmp_path.rglob("t000.json")
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(ValueError, match=f"t000.json {words}"):
        TrialStore(Storage(str(tmp_path)))


def test_finalists_came_to_their_end_and_the_best_control_is_with_them(tmp_path):
    kept = make_store(
        tmp_path,
        trial(0, 9.0, "control", params={"loss.tau": 0.0}),
        trial(1, 8.0, "control", params={"loss.tau": 0.0}),
        trial(2, 7.0),
        trial(3, 6.0),
        trial(4, 0.1, status="stopped", images=200),
        trial(5, 5.0),
    )
    assert [t.id for t in choose_finalists(kept, "fid", 2)] == ["t005", "t003", "t001"]
    assert choose_finalists(kept, "fid", 0) == []


def test_where_only_controls_came_to_their_end_the_best_of_the_furthest_are_repeated(tmp_path):
    kept = make_store(
        tmp_path,
        trial(0, 6.0, "control", params={"loss.tau": 0.0}),
        trial(1, 1.0, status="stopped", images=200),
        trial(2, 5.0, status="stopped", images=600),
        trial(3, 4.0, status="stopped", images=600),
        trial(4, 0.1, status="failed", images=0),
    )
    assert [t.id for t in choose_finalists(kept, "fid", 1)] == ["t003", "t000"]


def test_the_interval_of_a_few_seeds_is_students():
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3), rel=1e-5)
    assert mean_interval([1.0]).high == math.inf


def repeated(tmp_path, mine, control):
    trials = [trial(0, 5.0, "control", params={"loss.tau": 0.0}), trial(1, 4.0)]
    for of, values in ((0, control), (1, mine)):
        params = dict(trials[of].params)
        for seed, fid in enumerate(values, 1):
            rung = (Rung(1200, scores(fid), 1.0, 0.0),)
            trials.append(
                Trial(
                    id=f"t{of:03d}r{seed}",
                    kind="final",
                    of=f"t{of:03d}",
                    params=params,
                    seed=seed,
                    status="finished",
                    rungs=rung,
                )
            )
    return finalists(make_store(tmp_path, *trials), "fid")


def told(found):
    control = next(f for f in found if f.trial.is_control)
    return " ".join(statement(found, compare(found[0], control)))


def test_a_winner_beats_the_control_only_beyond_noise(tmp_path):
    clear = repeated(tmp_path / "a", mine=(3.0, 3.1, 3.0), control=(5.0, 5.1, 5.1))
    assert "Better beyond noise: FID (3.03 to 5.07" in told(clear)
    unclear = repeated(tmp_path / "b", mine=(3.0, 5.2, 4.0), control=(5.0, 4.1, 4.1))
    assert "Nothing beats the control (tau 0) beyond noise; trial" in told(unclear)
    lost = repeated(tmp_path / "c", mine=(6.0, 6.2, 6.0), control=(5.0, 5.1, 5.1))
    assert told(lost).startswith("The control wins")


def test_without_repetitions_no_winner_is_named():
    assert "No winner is named" in statement([], [])[0]
    alone = Finalist(trial(1, 4.0), (), "fid")
    assert "No winner is named" in statement([alone], [])[0]


def with_strengths(seed, one, two):
    """A repetition with FID ``one`` at omega 1, and ``two`` at omega 2."""
    rung = Rung(1200, {"1.0": {"fid": one}, "2.0": {"fid": two}}, 1.0, 1200)
    return replace(trial(7, 4), seed=seed, rungs=(rung,))


def test_the_searchs_own_seed_does_not_choose_the_strength_of_a_finalist():
    """Both settings are equal at omega 1; the seed of the search liked omega 2 for one."""
    lucky = replace(trial(1, 4), rungs=with_strengths(0, 4.0, 6.0).rungs)
    misled = replace(trial(0, 4), rungs=with_strengths(0, 6.0, 5.0).rungs)
    again = tuple(with_strengths(seed, 3.0 + seed / 9, 8.0) for seed in (1, 2, 3))
    a, b = (Finalist(one, again, "fid") for one in (lucky, misled))
    assert b.omega == "1.0" and b.strengths == ["1.0"] * 3
    (fid,) = (c for c in compare(a, b) if c.metric == "fid")
    assert fid.difference.value == 0
    assert Finalist(misled, (), "fid").omega == "2.0", "all that is known"


def test_a_repetition_does_not_choose_its_own_strength():
    """Else the smallest of several noisy numbers would be taken for each seed."""
    again = (
        with_strengths(1, 1.0, 2.0),
        with_strengths(2, 5.0, 2.0),
        with_strengths(3, 5.0, 2.0),
    )
    found = Finalist(trial(1, 4), again, "fid")
    assert found.strengths == ["2.0"] * 3
    assert found.scalars() == [2.0, 2.0, 2.0]
    once = (with_strengths(1, 9.0, 2.0),)
    first = replace(trial(1, 4), rungs=with_strengths(0, 4.0, 6.0).rungs)
    assert Finalist(first, once, "fid").strengths == ["1.0"], "the search's, for want of others"


@pytest.mark.parametrize(
    ("options", "again"),
    [({"finalists": 2}, 3 * 3), ({"finalists": 0}, 0), ({"repeats": 4}, 16)],
)
def test_a_dry_run_counts_the_repetitions_of_the_finalists_and_of_a_control(options, again):
    base = preset("digits_lt")
    options = SearchConfig(trials=6, scheduler="all", **options)
    said = describe_search(options, base, make_space(options.space, base))
    total = base.train.total_images
    assert said["images, expected"] == f"{6 * total:,}"
    assert said["images, repetitions"] == f"{again * total:,}, in all {(6 + again) * total:,}"
