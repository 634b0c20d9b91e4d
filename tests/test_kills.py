"""Many kills at random moments: the run that suffered them ends in the unbroken run's bits."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from ray_tools import (
    command,
    final_files,
    logged_steps,
    newest_checkpoint,
    run,
    start,
    worker_pids,
)

pytestmark = [pytest.mark.ray, pytest.mark.kills, pytest.mark.timeout(3600)]
IMAGES = 9_600
KILLS = 6


@pytest.mark.parametrize("workers", [2, 3])
def test_many_kills_change_no_bit(work: Path, workers: int) -> None:
    """kill -9 of workers and of the driver by turns; then the same command, to the end."""
    more = (
        "--train.save-every",
        "480",
        "--train.keep-checkpoints",
        "99",
        "--train.log-every",
        "480",
    )
    run(command(work, f"whole-{workers}", workers, IMAGES, *more), seconds=1200)

    name, log = f"hurt-{workers}", work / f"hurt-{workers}.log"
    words, chance = command(work, name, workers, IMAGES, *more), random.Random(workers)
    driver, killed, dead = start(words, log), 0, []

    def recovered() -> bool:
        """A new group of workers has written a checkpoint past those from before the kill."""
        return worker_pids(log) not in ([], dead) and newest_checkpoint(work, name) > seen

    while killed < KILLS:
        seen = newest_checkpoint(work, name)
        while driver.poll() is None and not recovered():
            time.sleep(0.05)
        time.sleep(chance.random())
        if driver.poll() is not None:
            break
        dead = worker_pids(log)
        if killed % 2 == 0:
            os.kill(chance.choice(dead), signal.SIGKILL)
        else:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            driver = start(words, log)
        killed += 1
        print(f"kill {killed} after checkpoint {newest_checkpoint(work, name)}", flush=True)
    assert driver.wait(timeout=1200) == 0, log.read_text()[-3000:]
    assert killed >= 3
    assert final_files(work, name, IMAGES) == final_files(work, f"whole-{workers}", IMAGES)
    assert logged_steps(work, name, "loss/total") == list(range(480, IMAGES + 1, 480))
