"""A run in this process alone: no Ray, the bits of one worker, and a save when it is asked."""

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from ray_tools import command, final_files, run, start, wait_for

from data_prep.__main__ import main as prepare

WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from cbdm_scale.train import main; {}"


@pytest.mark.timeout(120)
def test_training_in_this_process_needs_no_ray_and_a_signal_to_its_group_saves(
    tmp_path: Path,
) -> None:
    """With a loader process, which the group's signal must not end before the save."""
    made = "synthetic --name shapes --classes 2 --counts 64 --eval-per-class 1 --resolution 8"
    prepare([*made.split(), "--no-classifier", "--out", str(tmp_path / "shards")])
    more = [
        "--dataset",
        "shapes",
        "--preset",
        "small",
        "--eval.extractor",
        "none",
        "--data.num-workers",
        "1",
    ]
    words = command(tmp_path, "alone", 0, 960_000, *more)[3:]
    driver = start(
        [sys.executable, "-c", WITHOUT_RAY.format("sys.exit(main())"), *words],
        tmp_path / "log",
        start_new_session=True,
    )
    wait_for(lambda: "images |" in (tmp_path / "log").read_text() or driver.poll() is not None)
    assert driver.poll() is None, (tmp_path / "log").read_text()
    processes = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGTERM)
    os.killpg(driver.pid, signal.SIGTERM)
    assert driver.wait(60) == 128 + signal.SIGTERM, (tmp_path / "log").read_text()[-2000:]
    newest = max((tmp_path / "runs" / "alone" / "checkpoints").glob("0*"))
    assert json.loads((newest / "state.json").read_text())["progress"]["num_seen"] > 0
    assert processes and psutil.wait_procs(processes, 30)[1] == [], "a process is left"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_in_this_process_has_the_bits_of_one_worker(work: Path) -> None:
    """Weights, averages, optimiser, and every score."""
    for name, workers in (("here", 0), ("there", 1)):
        assert "finished at 960 images" in run(command(work, name, workers, 960))
    assert final_files(work, "here", 960) == final_files(work, "there", 960)
    file = "evaluation/000000000960-training/metrics.json"
    found = [
        json.loads((work / "runs" / name / file).read_text()) for name in ("here", "there")
    ]
    scores = [{k: v for k, v in one.items() if k not in ("run", "checkpoint")} for one in found]
    assert scores[0] == scores[1]
