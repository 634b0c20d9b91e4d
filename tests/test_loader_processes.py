"""Loader processes that die or hang stop the run with an error."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from loader_tools import BATCH, open_images, write_digits

from cbdm_scale.data.loader import load_batches
from cbdm_scale.data.loader_processes import LoaderError
from cbdm_scale.data.options import DataConfig


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blow", "option"),
    [
        (signal.SIGKILL, r"data.num_workers \(2\): loader process \d+ \(-9\).* is gone"),
        (signal.SIGSTOP, r"data.timeout_s \(1\): no batch came from the 2 loader processes"),
    ],
)
def test_a_process_that_is_killed_or_hangs_stops_the_run(tmp_path, blow, option):
    write_digits(tmp_path)
    config = DataConfig(num_workers=2, prefetch_factor=1, timeout_s=1)
    batches = load_batches(
        open_images(tmp_path), config, start=0, batch_size=BATCH, rank=0, world_size=1
    )
    next(batches)
    processes = torch.multiprocessing.active_children()
    assert len(processes) == 2
    for process in processes:
        os.kill(process.pid, blow)
    with pytest.raises(LoaderError, match=option):
        for _ in range(10):
            next(batches)
    for process in processes:
        process.join(10)
        assert process.exitcode == -signal.SIGKILL


LOAD = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
from loader_tools import BATCH, open_images
from cbdm_scale.data.loader import DataConfig, load_batches

if __name__ == "__main__":
    where = dict(start=0, batch_size=BATCH, rank=0, world_size=1)
    batches = load_batches(open_images(Path({root!r})), DataConfig(num_workers=1), **where)
    next(batches)
    print(*[p.pid for p in torch.multiprocessing.active_children()], flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_no_process_outlives_a_worker_that_was_killed(tmp_path):
    write_digits(tmp_path)
    script = tmp_path / "load.py"
    script.write_text(LOAD.format(tests=str(Path(__file__).parent), root=str(tmp_path)))
    worker = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    [loader] = map(int, worker.stdout.readline().split())
    assert Path(f"/proc/{loader}").exists()
    worker.kill()
    worker.wait()
    end = time.monotonic() + 60
    while Path(f"/proc/{loader}").exists():
        assert time.monotonic() < end, "the loader process is still there"
        time.sleep(0.1)
    worker.stdout.close()
