"""cbdm runs: what is in a storage, and old checkpoints away."""

import os
import re
import shutil
import socket
import threading
from dataclasses import asdict, replace

import psutil
import pytest
from record_tools import write_training_record
from sampling_tools import make_run

from cbdm_scale.runs.__main__ import main
from cbdm_scale.runs.listing import find_runs, old_checkpoints
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.lease import LEASE, Holder
from cbdm_scale.storage.run_dir import RunDir


@pytest.fixture
def run(tmp_path, digits_root):
    """A run with checkpoints after 1,000, .. 5,000 images, the best after 2,000."""
    folder = Storage(make_run(tmp_path, digits_root))
    first = RunDir(folder).checkpoints()[0]
    for num_seen in range(1_000, 6_000, 1_000):
        shutil.copytree(
            folder.local_path(first), folder.local_path(RunDir.checkpoint(num_seen))
        )
        fid = {"fid": abs(num_seen - 2_000) / 100 + 1.5}
        write_training_record(folder, num_seen, {"1.0": fid})
    folder.remove(first)
    (tmp_path / "not-a-run").mkdir()
    return folder


def words(run, *more):
    return ["--cluster.storage", run.url.rpartition("/")[0], *more]


def numbers(run):
    return [int(name.rpartition("/")[2]) for name in RunDir(run).checkpoints()]


def test_a_run_is_a_line_with_state_images_best_fid_and_size(run, capsys):
    assert main(words(run)) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["run", "state", "images"]
    name = run.url.rpartition("/")[2]
    megabytes = sum(p.stat().st_size for p in run.local_path().rglob("*") if p.is_file()) / 1e6
    assert heading.endswith("where")
    assert re.match(
        rf"{name} +finished +5,000/480 +1\.50 at 2,000 +5 +{megabytes:,.1f} +{run.url}$", line
    ), line


def test_old_checkpoints_go_but_for_the_newest_and_the_best_and_a_dry_run_deletes_none(
    run, capsys
):
    assert main(words(run, "--keep-checkpoints", "2", "--dry-run")) == 0
    assert "would be free" in capsys.readouterr().out
    assert numbers(run) == [1_000, 2_000, 3_000, 4_000, 5_000]
    assert main(words(run, "--keep-checkpoints", "2")) == 0
    assert "deleted" in capsys.readouterr().out
    assert numbers(run) == [2_000, 4_000, 5_000]


def test_the_best_for_the_few_stays_too_and_a_run_out_of_patience_has_ended(run, capsys):
    for num_seen, few in ((1_000, 3.0), (2_000, 4.0), (3_000, 5.0), (4_000, 6.0)):
        scores = {"fid": abs(num_seen - 2_000) / 100 + 1.5, "fid_few": few}
        write_training_record(run, num_seen, {"1.0": scores})
    about = run.read_json(RunDir.CONFIG)
    about["train"] |= {"total_images": 9_000, "eval_at": [1_000, 2_000, 3_000, 4_000, 5_000]}
    for patience, state in ((3, "ended"), (4, "stopped")):
        about["train"]["patience"] = patience
        run.write_json(RunDir.CONFIG, about)
        main(words(run))
        assert capsys.readouterr().out.splitlines()[1].split()[1] == state
    assert main(words(run, "--keep-checkpoints", "1")) == 0
    assert numbers(run) == [1_000, 2_000, 5_000]


def test_the_best_for_the_few_is_not_one_that_lost_their_variety(run):
    for num_seen, few, recall in ((1_000, 3.0, 0.9), (2_000, 2.9, 0.5), (3_000, 2.95, 0.5)):
        scores = {"fid": 10 - num_seen / 1_000, "fid_few": few, "recall_few": recall}
        write_training_record(run, num_seen, {"1.0": scores})
    assert main(words(run, "--keep-checkpoints", "1")) == 0
    assert numbers(run) == [1_000, 3_000, 5_000]


def test_a_run_that_is_being_trained_is_said_so_and_left_alone(run, capsys):
    began = psutil.Process().create_time()
    me = {"host": socket.gethostname(), "pid": os.getpid(), "started": began, "token": "x"}
    run.write_json(LEASE, me)
    assert main(words(run)) == 0
    assert f"training on {me['host']}:{me['pid']}" in capsys.readouterr().out
    assert main(words(run, "--keep-checkpoints", "1")) == 0
    assert f"left {run.url}: training on" in capsys.readouterr().out
    assert len(numbers(run)) == 5


def test_a_lease_of_another_machine_lapses_unless_it_gives_a_sign(run, capsys):
    storage, elsewhere = Storage(run.url.rpartition("/")[0]), Holder("node-7", 4711, 0.0, "x")
    run.write_json(LEASE, asdict(elsewhere))
    (found,) = find_runs(storage, lapse_s=0.3)
    assert found.state == "finished" and old_checkpoints(found, 1)
    assert "waiting for a sign of 1 on other machines" in capsys.readouterr().out
    beat = replace(elsewhere, beats=1)
    timer = threading.Timer(0.2, run.write_json, (LEASE, asdict(beat)))
    timer.start()
    (found,) = find_runs(storage, lapse_s=30)
    assert found.state == "training on node-7:4711" and not old_checkpoints(found, 1)


def test_a_run_of_another_version_is_listed_as_one_and_left_alone(run, capsys):
    about = run.read_json(RunDir.CONFIG)
    about["train"]["an_option_of_next_year"] = 1
    run.write_json(RunDir.CONFIG, about)
    assert main(words(run)) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert re.search(r" another version +5,000/480 +1\.50 at 2,000 ", line), line
    assert main(words(run, "--keep-checkpoints", "1")) == 0
    assert f"left {run.url}: another version" in capsys.readouterr().out
    assert len(numbers(run)) == 5
    run.write_json(RunDir.CONFIG, {"decided": {}, "options": {"train": {}}})
    assert main(words(run)) == 1, "a classifier is no run of this kind"


def test_a_run_without_its_checkpoints_says_so_with_what_is_known_of_it(run, capsys):
    run.remove(RunDir.CHECKPOINTS)
    assert main(words(run)) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert re.search(r" checkpoints deleted +5,000/480 +1\.50 at 2,000 +0 ", line), line


def test_nothing_there_and_nothing_to_do_are_said(tmp_path, run, capsys):
    (tmp_path / "empty").mkdir()
    for line, text in (
        (["--cluster.storage", str(tmp_path / "empty")], "no run there"),
        (words(run, "--name", "other"), "name (other): no run there. Runs there: "),
        (words(run, "--dry-run"), "dry_run says what keep_checkpoints would delete"),
        (words(run, "--keep-checkpoints", "0"), "keep_checkpoints must be at least 1, got 0"),
    ):
        assert main(line) == 1
        assert text in capsys.readouterr().err
