"""The main job as a user types it: real Ray workers, real kills, real MLflow on sqlite."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from gloo_tools import Job, launch
from ray_tools import (
    EVERY,
    IMAGES,
    command,
    final_files,
    logged_steps,
    newest_checkpoint,
    run,
    run_here,
    start,
    wait_for,
)

from cbdm_scale.config.schema import from_dict
from cbdm_scale.storage.folder import Storage

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def unbroken_files(work: Path, of: str) -> dict[str, bytes]:
    """The final files of a run's configuration as two processes train it that nothing stops."""
    if not (work / "runs" / "unbroken").exists():
        config = from_dict(Storage(str(work / "runs" / of)).read_json("config.json"))
        silent = replace(config.eval, extractor="none")
        job = Job(replace(config, name="unbroken", eval=silent), ranks=2)
        assert launch([job], work / "meeting") == [0, 0]
    return final_files(work, "unbroken", IMAGES)


@pytest.mark.parametrize("whom", ["worker", pytest.param("driver", marks=pytest.mark.slow)])
def test_a_killed_run_ends_in_the_bits_of_the_unbroken_one(
    work: Path, request: pytest.FixtureRequest, whom: str
) -> None:
    """Killed and resumed, dropout on: the same weights, EMA and optimiser."""
    name, tracker = f"killed-{whom}", "server" if whom == "worker" else "runs"
    if whom == "worker":  # Ray starts the group again; nobody types anything
        out = request.getfixturevalue("killed")
    else:  # the same command goes on
        words = command(work, name, 2, IMAGES, *EVERY)
        driver = start(words, work / f"{name}.log")
        wait_for(lambda: newest_checkpoint(work, name) >= 480)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        out = run(words)
    assert "resumed from" in out and "FID" in out and "/#/experiments/" in out
    assert "finished at 1,920 images" in out
    assert final_files(work, name, IMAGES) == unbroken_files(work, name)
    steps = logged_steps(work, name, "loss/total", tracker)
    assert steps == list(range(48, IMAGES + 1, 48)), "every metric once, none twice"


def test_what_leads_the_workers_loads_no_torch(work: Path, killed: str) -> None:
    """It would wait seconds for it at the start of every run."""
    loaded = (work / "controller.txt").read_text()
    assert "_raylet" in loaded and "libtorch" not in loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whom", "whose"),
    [
        pytest.param(signal.SIGTERM, "group", "own"),
        pytest.param(signal.SIGINT, "group", "shared"),
        pytest.param(signal.SIGHUP, "process", "own"),
    ],
    ids=["term", "ctrl-c", "hangup"],
)
def test_a_signal_saves_and_the_same_command_goes_on(
    work: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, whom: str, whose: str
) -> None:
    """Also where the cluster is the command's own, and its group hears the signal, twice."""
    if whose == "own":
        monkeypatch.setenv("RAY_ADDRESS", "local")
    name = f"stopped-{number.name}"
    words = command(work, name, 2, 960_000, "--train.save-every", "960000")
    driver = start(words, work / f"{name}.log", start_new_session=True)
    spool = work / "runs" / name / "tracking"
    wait_for(lambda: spool.exists() and any(f.stat().st_size for f in spool.glob("*.jsonl")))
    processes = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(number)
    if whom == "group":
        os.killpg(driver.pid, number)
    assert driver.wait(timeout=120) == 128 + number
    assert "the same command goes on" in (work / f"{name}.log").read_text()
    newest = max((work / "runs" / name / "checkpoints").glob("0*"))
    images = json.loads((newest / "state.json").read_text())["progress"]["num_seen"]
    assert 0 < images < 960_000
    assert psutil.wait_procs(processes, 30)[1] == [], "a process is left"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_ends_an_evaluation_of_the_training_workers_that_the_same_command_makes(
    work: Path, workers: int
) -> None:
    """Of three chunks, so that one rank has twice as many, each with many calls."""
    name, endless = f"judged-{workers}", ["--sample.name", "ddpm", "--sample.num-steps", "1000"]
    more = ["--train.eval-every", "48", "--eval.background", "never"]
    more += ["--eval.chunk-size", "200", "--eval.num-images"]
    words = command(work, name, workers, 96, *more, "600", *endless)
    driver = start(words, work / f"{name}.log", start_new_session=True)
    checkpoints = work / "runs" / name / "checkpoints"
    wait_for(
        lambda: (
            newest_checkpoint(work, name) == 48
            and (checkpoints / f"{48:012d}" / "state.json").exists()
        )
    )
    time.sleep(5)  # or the request comes before the evaluation
    processes = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGTERM)
    assert driver.wait(timeout=60) == 128 + signal.SIGTERM
    log = (work / f"{name}.log").read_text()
    assert "the same command goes on" in log and "FID" not in log
    assert newest_checkpoint(work, name) == 48
    assert psutil.wait_procs(processes, 30)[1] == [], "a process is left"
    out = run(command(work, name, workers, 96, *more, "60"))
    assert "48 images | FID" in out and "finished at 96 images" in out


def test_more_workers_than_cpus_is_said_at_once(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(work, "crowd", 24, 480)
    words[words.index("--cluster.cpus-per-worker") + 1] = "100"
    assert run_here(words) == 1
    assert "cluster.workers (24) x cluster.cpus_per_worker (100)" in capsys.readouterr().err
    assert not (work / "runs" / "crowd").exists()
