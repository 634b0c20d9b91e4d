"""Runs and the tracker against a real MLflow database, killed with -9 in between."""

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tracking_tools import begin, history, make_checkpoint, make_database, make_png

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.client import make_client
from cbdm_scale.tracking.runs import default_tracking_uri, end_run, end_run_after, ui_command
from cbdm_scale.tracking.sender import Sender
from cbdm_scale.tracking.spool import Spool
from cbdm_scale.tracking.tracker import MlflowTracker, Tracker

ROOT = Path(__file__).parents[1]
DEAD = "http://127.0.0.1:9"  # nobody listens on the discard port


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("a store")))


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "digits_lt-cbdm-0123abcd"))


# Runs


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, cbdm_scale.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_database_stands_in_the_storage_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri(Storage(str(tmp_path))) == f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI"):
        default_tracking_uri(Storage("memory://x"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    assert default_tracking_uri(Storage("memory://x")) == DEAD


def test_a_run_is_made_once_and_continued(database: Storage, run: Storage) -> None:
    uri = f"sqlite:///{database.path('mlflow.db')}"
    params = {f"p{i}": "v" for i in range(130)} | {"long": "x" * 9000, "data.root": "a b"}
    run_id = begin(uri, run, params)
    assert run.read_text("mlflow_run_id").strip() == run_id
    end_run(uri, run_id, "FAILED")
    client = make_client(uri)
    assert client.get_run(run_id).info.status == "FAILED"
    assert begin(uri, run, {"p0": "another value is no obstacle"}) == run_id
    found = client.get_run(run_id)
    assert found.info.status == "RUNNING"
    assert len(found.data.params) == 132 and len(found.data.params["long"]) == 6000
    assert found.data.tags["git"] == "abc"
    assert database.path("mlartifacts") in found.info.artifact_uri.replace("%20", " ")


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ({"how": "finished"}, "FINISHED"),
        ({"how": "stopped"}, "KILLED"),
        ({"error": "what the user can mend"}, "FAILED"),
    ],
)
def test_how_work_ended_is_the_status_of_its_run(
    database: Storage, run: Storage, outcome: dict[str, str], status: str
) -> None:
    uri = f"sqlite:///{database.path('mlflow.db')}"
    run_id = begin(uri, run)
    if "error" in outcome:
        with pytest.raises(ValueError, match="what the user can mend"):
            end_run_after(uri, run_id, lambda: outcome)
    else:
        assert end_run_after(uri, run_id, lambda: outcome) is outcome
    assert make_client(uri).get_run(run_id).info.status == status


def test_a_new_run_needs_a_server_that_answers(run: Storage) -> None:
    with pytest.raises(
        ValueError, match=r"track\.uri \(http://127.0.0.1:9\) does not answer: .*"
    ):
        begin(DEAD, run)
    assert not run.exists("mlflow_run_id")


def test_a_run_goes_on_without_its_server(
    run: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    run.write_bytes("mlflow_run_id", b"0123\n")
    assert begin("http://user:secret@127.0.0.1:9", run) == "0123"
    assert "track.uri (http://127.0.0.1:9) does not answer" in caplog.text
    assert "secret" not in caplog.text


def test_a_run_that_the_store_does_not_have_is_an_error(
    database: Storage, run: Storage
) -> None:
    run.write_bytes("mlflow_run_id", b"0" * 32)
    with pytest.raises(ValueError, match=r"does not have the MLflow run 0{32}"):
        begin(f"sqlite:///{database.path('mlflow.db')}", run)


def test_the_charts_open_at_the_runs_of_the_experiment(database: Storage, run: Storage) -> None:
    uri = f"sqlite:///{database.path('mlflow.db')}"
    run_id = begin(uri, run)
    number = make_client(uri).get_run(run_id).info.experiment_id
    page = f"#/experiments/{number}?workflowType=machine_learning"
    assert "a store" in uri, "a path that a shell would cut in two"
    assert ui_command(uri, run_id) == (
        f"mlflow ui --backend-store-uri '{uri}'  # then open http://127.0.0.1:5000/{page}"
    )
    assert ui_command("http://me:secret@127.0.0.1:9/", run_id) == "http://127.0.0.1:9"


def test_a_copied_folder_of_runs_gets_an_experiment_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, old = make_database(tmp_path / "old"), Storage(str(tmp_path / "old" / "run"))
    begin(uri, old)
    assert not capsys.readouterr().out
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    moved = f"sqlite:///{tmp_path}/new/mlflow.db"
    client, runs = make_client(moved), []
    for name in "a", "b":
        runs.append(client.get_run(begin(moved, Storage(str(tmp_path / "new" / name)))).info)
        line = (
            f"experiment cbdm_scale-2: cbdm_scale has its files in {tmp_path}/old/mlartifacts"
        )
        assert capsys.readouterr().out.strip() == line
    assert len({run.experiment_id for run in runs}) == 1
    assert all(run.artifact_uri.startswith(f"{tmp_path}/new/mlartifacts/") for run in runs)
    begin(moved, Storage(str(tmp_path / "new" / "run")))  # a run that was copied goes on
    assert f"this run's files in {tmp_path}/old/mlartifacts/" in capsys.readouterr().out


def test_artifacts_that_a_user_put_elsewhere_stay_there(tmp_path: Path) -> None:
    uri = make_database(tmp_path)
    number = make_client(uri).create_experiment("cbdm_scale", f"{tmp_path}/big-disk")
    run_id = begin(uri, Storage(str(tmp_path / "run")))
    assert make_client(uri).get_run(run_id).info.experiment_id == number


# The tracker


@pytest.fixture
def uri(database: Storage) -> str:
    return f"sqlite:///{database.path('mlflow.db')}"


def test_everything_arrives_in_the_database(uri: str, run: Storage) -> None:
    run_id = begin(uri, run)
    tracker: Tracker = MlflowTracker(run, uri, run_id)
    for step in 64, 128:
        tracker.scalars(step, {"loss/total": 1 / step, "bad": math.nan, "fid[many]": 2.0})
    tracker.scalars(128, {f"class/{k}": 1.0 for k in range(1100)})
    tracker.image(128, "samples", make_png())
    tracker.tags({"substituted": "{}"})
    assert tracker.close(30) == 0
    assert history(uri, run_id, "loss/total") == [(64, 1 / 64), (128, 1 / 128)]
    assert history(uri, run_id, "fid_many_") == [(64, 2.0), (128, 2.0)]
    assert all(math.isnan(value) for _, value in history(uri, run_id, "bad"))
    found = make_client(uri).get_run(run_id).data
    assert found.metrics["class/1099"] == 1.0 and found.tags["substituted"] == "{}"


def test_sending_twice_is_sending_once(uri: str, run: Storage) -> None:
    run_id = begin(uri, run)
    run.child("tracking").write_bytes("2.png", make_png())
    checkpoint = make_checkpoint(run, 64)
    records: list[dict[str, Any]] = [
        {"seq": 1, "time": 7, "step": 64, "scalars": {"a": 0.1, "b": "nan", "c": "inf"}},
        {"seq": 2, "time": 8, "step": 64, "image": "grid/all", "file": "2.png"},
        {"seq": 3, "time": 9, "step": 64, "model": checkpoint, "aliases": ["newest"]},
    ]
    for _ in range(2):  # as after a crash between sending and marking
        Sender(run, uri, run_id).send(records, lambda part: None)
    client = make_client(uri)
    assert [len(history(uri, run_id, name)) for name in "abc"] == [1, 1, 1]
    assert len(client.list_artifacts(run_id, "images")) == 2
    assert len(client.search_model_versions(f"run_id='{run_id}'")) == 1


def test_a_damaged_record_does_not_stop_the_others(
    uri: str, run: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    run_id, spool = begin(uri, run), Spool(run.child(RunDir.TRACKING))
    for step in (1, 2, 3):
        spool.add_scalars(step, {"loss": float(step)})
    spool.close()
    [file] = Path(run.local_path(RunDir.TRACKING)).glob("*.jsonl")
    file.write_text(file.read_text().replace('"loss":2.0', '"loss":"much"'))
    assert MlflowTracker(run, uri, run_id).close(60) == 0
    assert history(uri, run_id, "loss") == [(1, 1.0), (3, 3.0)]
    assert "1 damaged records are set aside" in caplog.text and "loss takes" in caplog.text


def test_a_refused_record_does_not_stop_the_others(
    uri: str, run: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = begin(uri, run)
    records: list[dict[str, Any]] = [
        {"seq": 1, "time": 7, "step": 1, "scalars": {"good": 1.0}},
        {"seq": 2, "time": 7, "step": 1, "scalars": {"not a name!": 1.0}},
        {"seq": 3, "time": 7, "step": 2, "scalars": {"good": 2.0}},
    ]
    sent: list[int] = []
    Sender(run, uri, run_id).send(records, lambda part: sent.extend(r["seq"] for r in part))
    assert history(uri, run_id, "good") == [(1, 1.0), (2, 2.0)]
    assert sent == [1, 2, 3] and "not a name!" in caplog.text


KILLED = """
import sys, time
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.tracker import MlflowTracker
tracker = MlflowTracker(Storage(sys.argv[1]), sys.argv[2], sys.argv[3])
for step in range(100_000):
    tracker.scalars(step, {"loss": step / 7, "norm": float(step)})
    time.sleep(0.002)
    if step % 50 == 49:
        print(step, tracker.spool.sent, flush=True)
"""


def test_kill_9_and_starting_over_logs_no_metric_twice(uri: str, run: Storage) -> None:
    run_id = begin(uri, run)
    for least_sent in 1, 500:  # killed twice, each time with a part sent and a part not
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, run.url, uri, run_id],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        reached = 0
        for line in process.stdout:
            reached, sent = (int(word) for word in line.split())
            if sent >= least_sent:
                break
        process.kill()
        process.communicate()
    tracker = MlflowTracker(run, uri, run_id)
    last = reached + 100_010
    for step in range(reached - 100, reached + 10):
        tracker.scalars(step, {"loss": step / 7, "norm": float(step)})
    tracker.scalars(last, {"loss": last / 7, "norm": float(last)})
    assert tracker.close(60) == 0
    for name, scale in ("loss", 7), ("norm", 1):
        found = history(uri, run_id, name)
        steps = [step for step, _ in found]
        assert steps == [*range(len(steps) - 1), last]  # each once, none missing
        assert all(value == step / scale for step, value in found)


def test_no_tracker_is_a_tracker() -> None:
    tracker = Tracker()
    tracker.scalars(1, {"loss": 1.0})
    tracker.image(1, "samples", b"")
    tracker.model(1, "checkpoint", ["newest"])
    tracker.tags({"a": "b"})
    tracker.flush()
    assert tracker.close(1) == 0
