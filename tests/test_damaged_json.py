"""A file of a run whose values are of other types is a named error, never a traceback."""

import contextlib
import json
import math
from pathlib import Path

import pytest
from sampling_tools import only_set
from test_checkpoint import names, save_at
from test_finetune import started
from test_spool import drain
from training_tools import fresh_state

from cbdm_scale import classify
from cbdm_scale.evaluation.publish import has_report
from cbdm_scale.generation.store import open_set
from cbdm_scale.metrics.extract import _is_whole
from cbdm_scale.pretrained.finetune import load_init_from
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.recognition.worker import _known
from cbdm_scale.runs.listing import find_runs
from cbdm_scale.sample import main as sample
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.lease import LEASE, holder_of, lease
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.spool import Spool
from cbdm_scale.training.checkpoint import load_initial, load_newest
from tune.trials import Rung, Trial, TrialStore

WRONG = (None, [], {}, "x", 1.5, True, ["x"], {"x": ["x"]})
INSIDE = (None, ["x"], {"x": 1}, "x")


def damaged(tree, depth):
    """Other trees, and the tree with one value of another type or without it."""
    yield from WRONG
    yield from inside(tree, depth)


def inside(tree, depth):
    for key, value in tree.items() if isinstance(tree, dict) and depth else ():
        yield {k: v for k, v in tree.items() if k != key}
        for other in (*INSIDE, *inside(value, depth - 1)):
            yield {**tree, key: other}


def check(file, read, depth=2):
    """Every damaged form of a file is read, or refused with a ValueError that says so."""
    whole = file.read_text()
    read()
    refused = set()
    for tree in damaged(json.loads(whole), depth):
        file.write_text(json.dumps(tree))
        try:
            read()
        except ValueError as error:
            refused.add(str(error))
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} at {tree!r:.300}") from error
    file.write_text(whole)
    return refused


def test_what_a_run_started_from(run, digits_root, tmp_path):
    """init.json: of the run that goes on, and of the one that starts and looks at others."""
    storage = tmp_path / "tuned"
    words = ["--init-from", run, "--data.root", digits_root, "--name", "mine"]
    words += ["--cluster.storage", str(storage), "--eval.extractor", "none"]
    _, state, _ = started(words)
    file = storage / "mine" / RunDir.INITIAL_ABOUT
    refused = check(file, lambda: load_initial(Storage(str(file.parent)), state.net))
    assert any(text.startswith(f"{file} is damaged") for text in refused)
    Path(run).rename(tmp_path / "away")

    def again():
        init = load_init_from(run, str(storage), "mine")
        assert init.num_seen == 48 or init.num_seen is None or type(init.num_seen) is int

    again()
    assert all("does not exist" in text for text in check(file, again))


def test_the_configuration_of_a_run(run):
    file, runs = Path(run) / RunDir.CONFIG, Storage(str(Path(run).parent))
    for text in check(file, lambda: read_network(run), depth=1):
        assert RunDir.CONFIG in text, text
    for text in check(file, lambda: find_runs(runs)):
        assert "no run there" in text, text


def read_network(run):
    """Its configuration alone: weights that do not fit it have an error of their own."""
    with contextlib.suppress(ValueError):
        load_pretrained(run)


def test_the_counters_of_a_checkpoint(tmp_path):
    folder = Storage(str(tmp_path))
    save_at(folder, 10, 20)
    first, second = names(10, 20)
    found = set()

    def read():
        state = fresh_state()
        name, damaged = load_newest(folder, state)
        found.add((name, len(damaged)))
        assert type(state.progress.num_seen) is int and state.progress.num_seen in (0, 10, 20)

    assert check(tmp_path / second / RunDir.STATE, read) == set()
    assert found == {(second, 0), (first, 1)}


def test_who_works_in_a_folder(tmp_path):
    folder = Storage(str(tmp_path))
    with lease(folder, "it is worked in"):
        text = (tmp_path / LEASE).read_text()
    (tmp_path / LEASE).write_text(text)
    assert check(tmp_path / LEASE, lambda: holder_of(folder)) == set()


def test_the_plan_of_a_set(run):
    assert sample(["--run", run, "--num-images", "4", "--cluster.workers", "0"]) == 0
    made = only_set(f"{run}/samples")
    file = made.local_path("set.json")
    assert all(
        "set.json" in t or "images" in t for t in check(file, lambda: open_set(made.url))
    )


def test_what_a_tracker_has(tmp_path):
    folder = Storage(str(tmp_path))
    spool = Spool(folder)
    spool.add_scalars(1, {"loss": 1.0})
    spool.sync()
    file = tmp_path / "sent.json"
    file.write_text('{"seq": 0, "marks": {"scalar/loss": -1}}')
    assert all(
        text.startswith(f"{file} is damaged") for text in check(file, lambda: Spool(folder))
    )


@pytest.mark.parametrize(
    "add",
    [
        lambda spool: spool.add_scalars(2, {"loss": 2.0, "late": math.nan}),
        lambda spool: spool.add_image(2, "samples", b"png"),
        lambda spool: spool.add_model(2, "url", ["newest"]),
        lambda spool: spool.add_tags({"state": "x"}),
    ],
    ids=["scalars", "image", "model", "tags"],
)
def test_a_record_of_the_spool(add, tmp_path, caplog):
    """It is left out and named, at the start or on the way, and what is behind it is sent."""
    refused, whole = 0, written(add, tmp_path / "whole")[1]
    more = [{**whole, "time": 10**30}, {**whole, "file": "../1.png"}, {**whole, "more": 1}]
    for number, tree in enumerate((None, *more, *damaged(whole, 2))):
        home = tmp_path / str(number)
        first, good, last = written(add, home)
        line = json.dumps(tree if number else good)
        before = Spool(Storage(str(home))) if number % 2 else None
        file = home / "000000000001.jsonl"
        file.write_text(f"{json.dumps(first)}\n{line}\n{json.dumps(last)}\n")
        caplog.clear()
        found = drain(before or Spool(Storage(str(home))))
        assert found[0] == first and found[-1] == last and len(found) in (2, 3), line
        aside = home / "000000000001.jsonl.damaged"
        assert aside.exists() == (len(found) == 2) == (str(file) in caplog.text), line
        if len(found) == 2:
            assert aside.read_text() == f"{line}\n"
            refused += 1
    assert refused > 20


def written(add, folder):
    """The records of a spool: a loss, what is added, a loss."""
    spool = Spool(Storage(str(folder)))
    spool.add_scalars(1, {"loss": 1.0})
    add(spool)
    spool.add_scalars(3, {"loss": 3.0})
    spool.close()
    return [
        json.loads(line) for line in (folder / "000000000001.jsonl").read_text().splitlines()
    ]


def test_the_trials_of_a_search(tmp_path):
    store = TrialStore(Storage(str(tmp_path)))
    rung = Rung(48, {"0": {"fid": 3.0}}, 1.0, 2.0)
    store.put(Trial(id="a", kind="search", params={"loss.tau": 1.0}, seed=0, rungs=(rung,)))
    file = tmp_path / "records" / "a.json"
    assert TrialStore(Storage(str(tmp_path))).trials == store.trials
    for text in check(file, lambda: TrialStore(Storage(str(tmp_path)))):
        assert str(file) in text and ("Remove it" in text or "Give it the name" in text)


def test_the_result_of_a_seed_and_the_configuration_of_its_run(tmp_path, digits_root):
    folder, said = Storage(str(tmp_path)), []
    folder.write_json("seed-0.json", {"seed": 0, "confusion": [[1, 2], [3, 4]]})
    file = tmp_path / "seed-0.json"
    assert check(file, lambda: _known(folder, "seed-0.json", said.append)) == set()
    assert said and all(text.startswith(f"{file} is damaged") for text in said)
    assert _known(folder, "seed-0.json", said.append) == [[1, 2], [3, 4]]
    options, _ = classify.parse(["--name", "mine", "--cluster.storage", str(tmp_path)])
    decided = {"network": "resnet32", "train": {"lr": 0.1}}
    run = classify.open_run_dir(options, decided)
    refused = check(
        run.local_path(RunDir.CONFIG), lambda: classify.open_run_dir(options, decided)
    )
    assert all("mine" in text and "another --name" in text for text in refused)


def test_what_is_said_of_an_evaluation(tmp_path):
    home = Storage(str(tmp_path)).child("one")
    home.write_json("report.json", {"against": "", "files": ["report.html"]})
    refused = check(home.local_path("report.json"), lambda: has_report(home, None))
    assert refused and all("report.json is damaged" in text for text in refused)


def test_features_that_are_kept(tmp_path):
    (tmp_path / "about.json").write_text('{"bytes": {"about.json": 3}}')
    assert check(tmp_path / "about.json", lambda: _is_whole(tmp_path)) == set()
