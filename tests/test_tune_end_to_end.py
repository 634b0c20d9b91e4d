"""A search as a user types it: trials with their own training workers, real MLflow, kills."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from ray_tools import FILES, SMALL, final_files, processes_of, run, run_here, start, wait_for

from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.client import make_client
from tune.trials import Rung, Trial, TrialStore

FIDS = "fid", "fid_many", "fid_medium", "fid_few"
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def words(work: Path, name: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "tune/search_tau.py", "--dataset", "digits_lt", "--name", name),
        *("--data.root", str(work / "shards"), "--cluster.storage", str(work / "runs")),
        *("--cluster.workers", "1", "--cluster.cpus-per-worker", "0.4", *SMALL, *more),
    ]


def store_of(work: Path, name: str) -> TrialStore:
    return TrialStore(Storage(str(work / "runs" / "search" / name)))


def test_a_search_goes_on_with_the_trial_it_lacks_a_run_nested_in_its_own(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two trials, of which the first, the control, is on record; and the page."""
    params = {"loss.tau": 0.0, "loss.p_uncond": 0.1, "loss.label_power": 1.0}
    scores = {omega: dict.fromkeys(FIDS, 1e6) for omega in ("1.0", "2.0")}
    rungs = tuple(Rung(images, scores, 1.0, 0.0) for images in (96, 192))
    control = Trial(
        id="t000", kind="control", params=params, seed=0, status="finished", rungs=rungs
    )
    store_of(work, "tiny").put(control)
    short = ("--train.total-images", "192", "--first-rung", "96", "--at-once", "1")
    assert run_here(words(work, "tiny", "--trials", "2", "--finalists", "0", *short)) == 0
    out = capsys.readouterr().out
    assert "t001 192 images" in out and "No winner is named" in out
    folder = work / "runs" / "search" / "tiny"
    assert (folder / "report.html").exists()
    found = store_of(work, "tiny").trials
    assert found["t000"] == control and found["t001"].status == "finished"
    assert [rung.images for rung in found["t001"].rungs] == [96, 192]
    assert not (folder / "trials" / "tiny-t000").exists()

    client = make_client(f"sqlite:///{work / 'runs' / 'mlflow.db'}")
    parent = (folder / "mlflow_run_id").read_text().strip()
    assert client.get_run(parent).info.status == "FINISHED"
    home = folder / "trials" / "tiny-t001"
    child = client.get_run((home / "mlflow_run_id").read_text().strip())
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert child.data.tags["trial"] == "t001" and child.data.tags["rung"] == "2"
    assert child.info.status == "FINISHED"


@pytest.mark.slow
def test_a_killed_search_goes_on_and_a_killed_trial_too(work: Path) -> None:
    """kill -9 of the driver, then of a trial's worker: every trial comes to its end."""
    command = words(
        work,
        "killed-search",
        *("--trials", "3", "--finalists", "1", "--repeats", "2", "--scheduler", "all"),
        *("--at-once", "1"),
        *("--train.total-images", "960", "--first-rung", "480", "--eta", "2"),
    )
    driver = start(command, work / "search1.log")
    wait_for(lambda: store_of(work, "killed-search").trials.get("t000") is not None, 300)
    wait_for(lambda: store_of(work, "killed-search").trials["t000"].images >= 480, 300)
    driver.send_signal(signal.SIGKILL)
    driver.wait()

    driver = start(command, work / "search2.log")
    runs = work / "runs" / "search" / "killed-search" / "trials"
    wait_for(lambda: (runs / "killed-search-t001" / "checkpoints").exists(), 300)
    wait_for(lambda: bool(processes_of(work, "ray::RayTrainWorker")), 300)
    os.kill(processes_of(work, "ray::RayTrainWorker")[0], signal.SIGKILL)
    assert driver.wait(timeout=600) == 0, (work / "search2.log").read_text()[-3000:]

    kept = store_of(work, "killed-search").trials
    assert sorted(kept) == ["t000", "t000r1", "t000r2", "t001", "t001r1", "t001r2", "t002"] or (
        sorted(kept) == ["t000", "t000r1", "t000r2", "t001", "t002", "t002r1", "t002r2"]
    )
    assert {t.status for t in kept.values()} == {"finished"}
    assert [r.images for r in kept["t000"].rungs] == [480, 960], "nothing was told twice"
    preset = work / "runs" / "search" / "killed-search" / "winner.json"
    train = [sys.executable, "-m", "cbdm_scale.train", "--config", str(preset), "--dry-run"]
    assert "loss.tau" in run([*train, "--data.root", str(work / "shards")])


@pytest.mark.slow
def test_ctrl_c_saves_every_running_trial_and_the_command_goes_on(work: Path) -> None:
    """Both have the weights in the end that a run has which nothing stopped."""

    def search(trials: int) -> list[str]:
        rungs = "--train.total-images", "9600", "--first-rung", "4800", "--eta", "2"
        own = "--controls", "1", "--at-once", "2", "--finalists", "0", "--scheduler", "all"
        return words(work, "stopped-search", "--trials", str(trials), *own, *rungs)

    log, runs = work / "stopped.log", work / "runs" / "search" / "stopped-search" / "trials"
    homes = {trial: runs / f"stopped-search-{trial}" for trial in ("t000", "t001")}

    def trains(home: Path) -> bool:
        return any(file.stat().st_size for file in home.glob("tracking/*.jsonl"))

    driver = start(search(3), log, start_new_session=True)
    wait_for(lambda: all(map(trains, homes.values())), 300)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(timeout=120) == 128 + signal.SIGINT, log.read_text()[-3000:]
    out = log.read_text()
    assert "2 of 2 running trials saved a checkpoint\n" in out
    found = store_of(work, "stopped-search").trials
    assert {trial.id: trial.status for trial in found.values()} == dict.fromkeys(
        homes, "running"
    )
    client = make_client(f"sqlite:///{work / 'runs' / 'mlflow.db'}")
    for trial, home in homes.items():
        (saved,) = [int(folder.name) for folder in home.glob("checkpoints/0*")]
        assert f"{trial} saved a checkpoint at {saved:,} images" in out and 0 < saved < 9600
        child = client.get_run((home / "mlflow_run_id").read_text().strip())
        assert child.info.status == "KILLED"

    run(search(2), seconds=800)
    ended = store_of(work, "stopped-search").trials
    assert {trial.id: trial.status for trial in ended.values()} == dict.fromkeys(
        homes, "finished"
    )
    alone = [
        sys.executable,
        "-m",
        "cbdm_scale.train",
        "--cluster.workers",
        "0",
        "--name",
        "alone",
    ]
    same = "--config", str(homes["t001"] / "config.json"), "--data.root", str(work / "shards")
    run([*alone, *same, "--cluster.storage", str(work / "runs")])
    checkpoint = homes["t001"] / "checkpoints" / f"{9600:012d}"
    kept = {file: (checkpoint / file).read_bytes() for file in FILES}
    assert kept == final_files(work, "alone", 9600)


@pytest.mark.slow
def test_a_population_exploits(work: Path) -> None:
    """Without our pointer as its checkpoint, Tune's PBT would run to its end unchanged."""
    command = words(
        work,
        "population",
        *("--trials", "4", "--controls", "1", "--finalists", "0", "--scheduler", "pbt"),
        *("--train.total-images", "960", "--first-rung", "240"),
    )
    out = run(command, seconds=850)
    found = store_of(work, "population")
    members = found.of_kind("search")
    taken = [(t, exploit) for t in members for exploit in t.exploits]
    assert taken and "took over the weights of" in out
    for trial, exploit in taken:
        assert exploit["of"] in found.trials and exploit["of"] != trial.id
    trial = next(t for t in members if t.exploits)
    home = work / "runs" / "search" / "population" / "trials" / trial.run
    config = json.loads((home / "config.json").read_text())
    assert config["loss"]["tau"] == trial.params["loss.tau"]


def test_more_trials_at_once_than_fit_is_said_at_once(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(words(work, "crowd-search", "--trials", "2", "--at-once", "999")) == 1
    assert "at_once (999) trials of 1 workers" in capsys.readouterr().err
    assert not (work / "runs" / "search" / "crowd-search").exists()
