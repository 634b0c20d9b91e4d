"""No rung ends all trials of a kind; what is on or off, and what changes on the way."""

from types import SimpleNamespace

import pytest
from tracking_tools import make_database

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.presets import FURTHER_TERM_ROWS, preset
from cbdm_scale.losses.options import TERM_OPTIONS
from cbdm_scale.storage.folder import Storage
from tune.identity import describe_search
from tune.options import SearchConfig, all_rungs, searched_row
from tune.pbt import check_searchable
from tune.ray_trials import initial_config, make_scheduler
from tune.run import trial_base
from tune.schedule import Spared, expected_images
from tune.search import Search
from tune.space import Choice, Range, as_options, make_space, own_value
from tune.trainable import TrialTemplate
from tune.trials import Rung, Trial

BASE = searched_row(preset("digits_lt", "cbdm"))
RUNGS = 8, 24, 48
LABELS = ("loss.label_power=train,bal",)


def search_of(words=LABELS, eta=3):
    """What a scheduler asks of a search."""
    return SimpleNamespace(
        template=SimpleNamespace(rungs=RUNGS),
        options=SearchConfig(eta=eta),
        space=make_space(words, BASE),
    )


class Race:
    """Trials that reach rungs one after the other, judged by the scheduler of a search."""

    def __init__(self, search, known=()):
        self.asha, self.stubs = make_scheduler(search, "asha", known), {}

    def reach(self, trial_id, images, value, kind="search", **values):
        params = {"loss.tau": 1.0, "loss.label_power": 1.0} | values
        trial = Trial(id=trial_id, kind=kind, params=params, seed=0)
        if trial_id not in self.stubs:
            stub = SimpleNamespace(trial_id=trial_id, config=initial_config(trial))
            self.stubs[trial_id] = stub
            self.asha.on_trial_add(None, stub)
        stub = self.stubs[trial_id]
        return self.asha.on_trial_result(None, stub, {"images": images, "value": value})


def test_the_best_so_far_of_a_kind_is_not_stopped_whatever_the_other_kind_has():
    """Controls are ahead early, as DDPM is by FID: the searched ones are far behind."""
    race = Race(search_of())
    for number in range(6):
        race.reach(f"t00{number}", 8, 1.0 + number / 9, kind="control")
    assert race.reach("t006", 8, 50.0) == "CONTINUE", "the first of its kind"
    assert race.reach("t007", 8, 60.0) == "STOP", "worse than one of its kind"
    assert race.reach("t008", 8, 40.0) == "CONTINUE", "better than all of its kind"
    assert race.reach("t009", 8, 39.0, kind="control") == "STOP"
    assert race.reach("t006", 24, 45.0) == "CONTINUE" == race.reach("t008", 24, 44.0)
    assert race.reach("t008", 48, 9.0) == "STOP", "which is its end"


def test_of_each_value_of_a_choice_one_trial_comes_to_its_end():
    race = Race(search_of())
    ended = []
    for number in range(12):
        power = number % 2
        images = 0
        for images in RUNGS:
            value = (5.0 if power else 90.0) + number / 9  # Y^bal is behind, later ones more so
            how = race.reach(f"t1{number:02}", images, value, **{"loss.label_power": power})
            if how == "STOP":
                break
        if images == RUNGS[-1]:
            ended.append(power)
    assert set(ended) == {0, 1}
    plain = Race(search_of(words=()))
    plain.reach("t100", 8, 5.0, **{"loss.label_power": 1})
    plain.reach("t101", 8, 6.0, **{"loss.label_power": 1})
    stopped = plain.reach("t102", 8, 90.0, **{"loss.label_power": 0})
    assert stopped == "STOP", "between values of a range there are no kinds"


def test_a_scheduler_that_hears_of_trials_again_spares_as_before():
    known = [
        Trial(
            id=f"t{i:03d}",
            kind="search",
            params={"loss.tau": 1.0, "loss.label_power": float(power)},
            seed=0,
            rungs=(Rung(8, {"1.0": {"fid": fid}}, 1.0, i),),
        )
        for i, (fid, power) in enumerate(((5.0, 1), (6.0, 1), (90.0, 0)), 1)
    ]
    bal = {"loss.label_power": 0.0}
    assert Race(search_of(), known).reach("t009", 8, 95.0, **bal) == "STOP"
    assert Race(search_of(), known).reach("t009", 8, 85.0, **bal) == "CONTINUE"
    assert Race(search_of(), known[:2]).reach("t009", 8, 95.0, **bal) == "CONTINUE"


def test_a_trial_that_failed_is_the_best_of_nothing():
    spared = Spared(make_space(LABELS, BASE))
    config = {"kind": "search", "loss.label_power": 0.0}
    assert not spared.is_best(config, 0, float("inf"))
    assert spared.is_best(config, 8, 3.0) and not spared.is_best(config, 8, 3.0)
    assert spared.kinds(config) == ["search", "loss.label_power=0"]
    assert spared.kinds({"kind": "control", "loss.label_power": 0.0}) == ["control"]


def test_the_expected_cost_has_one_trial_of_every_kind_to_its_end():
    assert expected_images(9, (10, 30, 90), 3) == 9 * 10 + 3 * 20 + 1 * 60
    assert expected_images(9, (10, 30, 90), 3, fewest=4) == 9 * 10 + 4 * 20 + 4 * 60
    assert expected_images(2, (10, 30), 3, fewest=4) == 2 * 30
    options = SearchConfig(trials=9, finalists=0)
    words = ("loss.label_power=train,sqrt,bal",)
    said = describe_search(options, BASE, make_space(words, BASE))["images, expected"]
    assert said == f"{expected_images(9, all_rungs(options, BASE), 3, 4):,}"


@pytest.mark.parametrize(
    ("first", "rungs"),
    [
        (0.5, (24_000, 48_000)),
        (0.25, (12_000, 36_000, 48_000)),
        (8_000, (8_016, 24_000, 48_000)),
    ],
)
def test_the_first_rung_is_a_share_of_the_run_or_so_many_images(first, rungs):
    assert all_rungs(SearchConfig(first_rung=first), BASE) == rungs


def test_a_first_rung_of_the_whole_run_or_more_stops_nothing():
    total = BASE.train.total_images
    assert all_rungs(SearchConfig(first_rung=2.0 * total), BASE) == (total,)
    with pytest.raises(ValueError, match="first_rung must be above 0"):
        SearchConfig(first_rung=0)


@pytest.mark.parametrize(
    ("word", "option", "expected"),
    [
        ("loss.t2h", "loss.t2h", Choice((0.0, 1.0))),
        ("loss.tcfg=0,1", "loss.tcfg", Choice((0.0, 1.0))),
        ("loss.two-mask=0,1", "loss.two_mask", Choice((0.0, 1.0))),
        ("data.resample-power", "data.resample_power", Range(0, 1)),
        ("data.balanced-fraction@0.6", "data.balanced_fraction@0.6", Range(0, 1)),
    ],
)
def test_terms_that_are_on_or_off_and_schedules_can_be_searched(word, option, expected):
    base = with_options(BASE, {"model.dropout": 0.1})
    assert make_space((word,), base)[option] == expected


@pytest.mark.parametrize("term", sorted({*TERM_OPTIONS} - {"tcfg"}))
def test_every_further_term_has_a_range_that_its_option_takes(term):
    """But TCFG, which is another way of guidance."""
    base = with_options(BASE, {"model.dropout": 0.1})
    found = make_space((f"loss.{term}",), base)[f"loss.{term}"]
    paper = {o: v for row in FURTHER_TERM_ROWS.values() for o, v in row.items()}[term]
    assert min(found.ends) <= paper <= max(found.ends), "and its row's value lies in it"


def test_what_is_on_or_off_takes_no_other_number():
    with pytest.raises(ValueError, match=r"space: loss.t2h is on or off. Try loss.t2h=0,1\."):
        make_space(("loss.t2h=0:1", "loss.t2h=0,2"), BASE)
    assert as_options(BASE, {"loss.t2h": 1.0, "loss.tau": 1.0}) == {
        "loss.t2h": True,
        "loss.tau": 1.0,
    }


def test_the_value_of_a_run_that_nothing_was_searched_for():
    base = with_options(BASE, {"data.resample_power": "1,0.5@0.6", "loss.t2h": True})
    shares = {"": 1.0, "@0.3": 1.0, "@0.6": 0.5, "@0.9": 0.5}
    for share, value in shares.items():
        assert own_value(base, f"data.resample_power{share}") == value
    assert own_value(base, "loss.t2h") == 1 and own_value(base, "data.balanced_fraction") == 0


def test_a_search_of_a_schedule_and_of_a_term_begins_with_the_rows_own(tmp_path):
    words = ("data.resample-power@0.6", "loss.t2h")
    options = SearchConfig(trials=4, finalists=0, space=words, controls=1)
    space, folder = make_space(words, BASE), Storage(str(tmp_path / "search"))
    uri, steps = make_database(tmp_path), all_rungs(options, BASE)
    runs = trial_base(options, BASE, folder, uri, steps)
    template = TrialTemplate(base=runs, name="s", rungs=steps, uri=uri, parent="")
    search = Search(options, BASE, space, folder, template)
    control, *others = (search.next_trial() for _ in range(4))
    assert control.kind == "control"
    assert control.params["data.resample_power@0.6"] == 1 and control.params["loss.t2h"] == 0
    first = template.config(control.id, control.kind, control.params, 0)
    assert first.data.resample_power == 1.0 and not first.loss.t2h and first.loss.name == "ddpm"
    for trial in others:
        config = template.config(trial.id, trial.kind, trial.params, 0)
        power = trial.params["data.resample_power@0.6"]
        assert config.data.resample_power == f"1,{power}@0.6"
        assert config.loss.t2h is bool(trial.params["loss.t2h"])
    assert {trial.params["loss.t2h"] for trial in others} == {0, 1}
    with pytest.raises(ValueError, match="a population changes its options"):
        check_searchable(space)
