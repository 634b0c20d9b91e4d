"""A search in the driver: what it hands out, what it keeps, how it goes on, what it refuses."""

import hashlib
import json
import threading
from dataclasses import replace

import pytest
from ray import cloudpickle
from record_tools import write_training_record
from tracking_tools import make_database

from cbdm_scale.config.presets import preset
from cbdm_scale.config.schema import identity_options
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.client import make_client
from cbdm_scale.train import parse
from tune.analysis import choose_finalists, finalists
from tune.identity import identity, open_search_dir, search_name
from tune.options import SearchConfig, all_rungs, searched_row
from tune.pbt import Pointer, fork_run
from tune.ray_trials import initial_config, make_scheduler
from tune.results import winner_preset, write_results
from tune.run import trial_base
from tune.search import Search
from tune.search_tau import parse as parse_search
from tune.space import SPACE
from tune.trainable import TrialTemplate, evaluations, share_reference
from tune.trials import Rung, Trial

BASE = searched_row(preset("digits_lt", "cbdm"))
OPTIONS = SearchConfig(trials=6, finalists=1, repeats=2)


def make_search(tmp_path, options=OPTIONS, base=BASE):
    folder = Storage(str(tmp_path / "search" / "s"))
    uri, steps = make_database(tmp_path), all_rungs(options, base)
    runs = trial_base(options, base, folder, uri, steps)
    template = TrialTemplate(base=runs, name="s", rungs=steps, uri=uri, parent="")
    return Search(options, base, SPACE, folder, template), folder


def scores(fid):
    groups = {f"fid_{g}": fid * k for g, k in (("many", 0.5), ("medium", 1.0), ("few", 3.0))}
    return {"1.0": {"fid": fid, **groups}, "2.0": {"fid": fid + 1, **groups}}


def info(trial, stopped=False):
    return {
        "seconds": 2.0,
        "train_seconds": 1.0,
        "stopped": stopped,
        "run": f"s-{trial.id}",
        "of": trial.id,
        "params": dict(trial.params),
    }


@pytest.fixture
def no_mlflow(monkeypatch):
    """Tells MLflow nothing; what would have been told is the fixture's value."""
    told = []
    for name in "tag_run", "end_run":
        monkeypatch.setattr(f"tune.search.{name}", lambda *a: told.append(a))
    monkeypatch.setattr("tune.search.run_id_of", lambda run: "id")
    return told


def run_all(search):
    """Every trial to its end; FID grows with tau's distance from 0.1."""
    while (trial := search.next_trial()) is not None:
        for images in search.template.rungs:
            fid = 5 + abs(trial.params["loss.tau"] - 0.1) + trial.seed / 10
            search.record(trial.id, images, scores(fid), info(trial))


def test_the_first_trial_is_the_control_with_the_rows_own_values(tmp_path):
    search, _ = make_search(tmp_path)
    first = search.next_trial()
    assert (first.id, first.kind) == ("t000", "control")
    assert first.params == {"loss.tau": 0, "loss.p_uncond": 0.1, "loss.label_power": 1.0}
    config = search.template.config(first.id, first.kind, first.params, 0)
    assert config.loss.name == "ddpm", "which costs one prediction a step"


def test_a_trial_with_tau_is_cbdm_whatever_the_preset_is(tmp_path):
    search, _ = make_search(tmp_path)
    loss = replace(search.base.loss, name="ddpm")
    template = replace(search.template, base=replace(search.base, loss=loss))
    assert template.config("a", "search", {"loss.tau": 0.3}, 0).loss.name == "cbdm"
    assert template.config("b", "control", {"loss.tau": 0}, 0).loss.name == "ddpm"
    assert template.config("c", "search", {"loss.p_uncond": 0.2}, 0).loss.name == "ddpm"


def test_all_trials_are_judged_on_the_same_noise_whatever_their_seed(tmp_path):
    search, _ = make_search(tmp_path)
    one = search.template.config("a", "search", {"loss.tau": 1.0}, 0)
    other = search.template.config("b", "final", {"loss.tau": 1.0}, 7)
    assert (one.seed, other.seed) == (0, 7)
    assert one.eval.seed == other.eval.seed == 0
    assert one.eval.scan and one.eval.background == "never"
    assert one.train.eval_at == search.template.rungs[:-1] and other.train.eval_at == ()


def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path, no_mlflow):
    search, _ = make_search(tmp_path)
    first, second = search.next_trial(), search.next_trial()
    search.record(first.id, search.template.rungs[0], scores(9.0), info(first))
    search.record(second.id, search.template.rungs[0], scores(9.0), info(second, stopped=True))

    again, _ = make_search(tmp_path)
    resumed = again.next_trial()
    assert (resumed.id, resumed.images) == (first.id, again.template.rungs[0])
    assert initial_config(resumed)["known"] == again.template.rungs[0], "it is not told twice"
    assert again.store.trials[second.id].status == "stopped"
    assert again.next_trial().params == search.next_trial().params, "and asks the same"


def test_ray_can_pickle_a_search_that_shows_its_progress(tmp_path):
    search, _ = make_search(tmp_path)
    search.progress.lock = threading.Lock()
    search.begin(search.repetitions([]), "final")
    again = cloudpickle.loads(cloudpickle.dumps(search))
    assert again.options == search.options and search.progress is not None


def test_a_search_ends_after_its_trials_and_goes_on_with_more(tmp_path, no_mlflow):
    search, _ = make_search(tmp_path)
    run_all(search)
    assert len(search.store.trials) == 6 and not search.has_more
    more, _ = make_search(tmp_path, replace(OPTIONS, trials=8))
    assert more.has_more and more.next_trial().id == "t006"


def test_a_failed_trial_says_why_and_the_search_goes_on(tmp_path, no_mlflow):
    search, _ = make_search(tmp_path)
    trial = search.next_trial()
    search.fail(trial.id, "ValueError: the disk is full")
    assert search.store.trials[trial.id].reason == "ValueError: the disk is full"
    tags = [call[2] for call in no_mlflow if isinstance(call[2], dict)]
    assert tags[0]["error"] == "ValueError: the disk is full"
    assert no_mlflow[-1][2] == "FAILED"
    assert search.next_trial().id == "t001"


def test_a_trial_that_failed_before_its_run_began_has_a_run_in_mlflow(tmp_path):
    search, folder = make_search(tmp_path)
    trial = search.next_trial()
    search.fail(trial.id, "ValueError: nothing fits")
    run_id = search.template.run_folder(trial).read_text("mlflow_run_id").strip()
    run = make_client(search.template.uri).get_run(run_id)
    assert run.data.tags["error"] == "ValueError: nothing fits"
    assert run.info.status == "FAILED"


def test_asha_hears_again_what_it_was_told_before(tmp_path, no_mlflow):
    search, _ = make_search(tmp_path)
    rungs = search.template.rungs
    told = [
        Trial(
            id=f"t{i:03d}",
            kind="search",
            params={"loss.tau": 1.0},
            seed=0,
            rungs=(Rung(rungs[0], scores(fid), 1.0, fid),),
        )
        for i, fid in enumerate((3.0, 4.0, 5.0), 1)
    ]

    class Stub:
        def __init__(self, number):
            self.trial_id, self.config = f"other{number}", {"id": number, "kind": "search"}

    def decide(fid, number="t009", images=rungs[0], told=told):
        asha, stub = make_scheduler(search, "asha", told), Stub(number)
        asha.on_trial_add(None, stub)
        return asha.on_trial_result(None, stub, {"images": images, "value": fid})

    assert decide(9.0) == "STOP" and decide(1.0) == "CONTINUE"
    assert decide(9.0, told=()) == "CONTINUE", "the first at a rung"
    assert decide(9.0, number="t000") == "CONTINUE", "the first control goes to its end"
    assert decide(9.0, number="t000", images=rungs[-1]) == "STOP"


def test_the_winner_is_a_preset_of_the_train_command(tmp_path, no_mlflow, valid_charts):
    search, folder = make_search(tmp_path)
    run_all(search)
    best = choose_finalists(search.store, "fid", 1)
    search.begin(search.repetitions(best), "final")
    run_all(search)
    found = finalists(search.store, "fid")
    assert [len(f.repetitions) for f in found] == [2, 2]
    write_results(search, folder)

    config = parse(["--config", folder.path("winner.json")]).config
    assert config.loss.tau == found[0].trial.params["loss.tau"]
    assert config.eval.guidance == (1.0,) and config.train.ema_ramp == BASE.train.ema_ramp
    assert identity_options(config.flat()) == winner_identity(search, found[0])
    page = folder.read_text("report.html")
    assert page.count("data-chart") >= 6 and "script-src &#39;sha256-" in page
    assert page.count("<script") == 2 and " src=" not in page[: page.index("<script")]
    findings = json.loads(folder.read_text("findings.json"))
    assert findings["cost"]["trials"] == 6
    assert {"front.png", "parameters.png", "curves.png"} <= set(folder.list())


def winner_identity(search, best):
    made = winner_preset(search, best, [])
    config = search.template.config("x", "search", made.options | best.trial.params, 0)
    return identity_options(config.flat())


def test_a_search_is_known_by_its_options_and_not_by_its_length(tmp_path):
    name = search_name(OPTIONS, BASE, SPACE)
    assert name == search_name(replace(OPTIONS, trials=99, finalists=0), BASE, SPACE)
    assert name != search_name(replace(OPTIONS, eta=4), BASE, SPACE)
    other = replace(BASE, loss=replace(BASE.loss, gamma=1.0))
    assert name != search_name(OPTIONS, other, SPACE)
    folder = Storage(str(tmp_path / "s"))
    open_search_dir(folder, identity(OPTIONS, BASE, SPACE))
    open_search_dir(folder, identity(OPTIONS, BASE, SPACE))
    with pytest.raises(ValueError, match="is a search with other options: runs.loss.gamma"):
        open_search_dir(folder, identity(OPTIONS, other, SPACE))


def test_the_command_takes_options_of_the_search_and_of_its_runs():
    told = parse_search(["--trials", "24", "--loss.gamma", "0.5", "--train.batch-size", "24"])
    assert (told.search.trials, told.base.loss.gamma, told.base.train.batch_size) == (
        24,
        0.5,
        24,
    )
    assert told.base.train.total_images == 48_000 and told.base.eval.scan


def test_only_whole_evaluations_at_all_strengths_are_told(tmp_path):
    run = Storage(str(tmp_path / "run"))
    config = replace(BASE, train=replace(BASE.train, total_images=960, eval_at=(100,)))
    write_training_record(run, 144, scores(3.0))
    write_training_record(run, 200, scores(3.0))
    write_training_record(run, 960, {"1.0": {"fid": 1.0}})
    assert evaluations(run, config) == [(144, scores(3.0))]
    run.write_bytes("evaluation/000000000144-training/metrics.json", b"{")
    assert evaluations(run, config, after=144) == [], "what is known is not read again"
    with pytest.raises(ValueError, match="000000000144-training.*damaged"):
        evaluations(run, config)


def test_reference_features_are_computed_once(tmp_path):
    config = replace(BASE, cluster=replace(BASE.cluster, storage=str(tmp_path)))
    first, second = Storage(str(tmp_path / "first")), Storage(str(tmp_path / "second"))
    share_reference(config, first)
    first.write_bytes("evaluation/real-1.bin", b"features")
    share_reference(config, first)
    share_reference(config, second)
    assert second.read_bytes("evaluation/real-1.bin") == b"features"


def test_taking_over_weights_makes_a_run_of_its_own_from_a_copy(tmp_path):
    search, _ = make_search(tmp_path)
    home = Storage(search.template.base.cluster.storage)
    donor, params = home.child("s-t001"), {"loss.tau": 1.0}
    donor.write_json("config.json", {"loss": {"tau": 1.0}})
    files = {}
    for file in RunDir.MODEL, RunDir.EMA, RunDir.OPTIMIZER:
        donor.write_bytes(f"checkpoints/000000000480/{file}", b"")
        files[file] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    state = {"format_version": 1, "files": files}
    donor.write_json("checkpoints/000000000480/state.json", state)
    pointer = Pointer("t001", "s-t001", 480)
    assert fork_run(search.template, "t001", params, pointer) == "s-t001", "its own goes on"
    other = fork_run(search.template, "t002", {"loss.tau": 0.8}, pointer)
    assert other.startswith("s-t002-")
    assert home.child(other).exists("checkpoints/000000000480/state.json")
    assert fork_run(search.template, "t002", {"loss.tau": 0.8}, pointer) == other
