"""Loader processes that die or hang stop the run with an error."""

import os
import signal

import pytest
import torch
from loader_tools import BATCH, open_images, write_digits

from cbdm_scale.data.loader import DataConfig, load_batches
from cbdm_scale.data.processes import LoaderError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blow", "option"),
    [
        (signal.SIGKILL, r"data.processes \(2\): loader process \d+ \(-9\).* is gone"),
        (signal.SIGSTOP, r"data.timeout_s \(1\): no batch came from the 2 loader processes"),
    ],
)
def test_a_process_that_is_killed_or_hangs_stops_the_run(tmp_path, blow, option):
    write_digits(tmp_path)
    config = DataConfig(processes=2, prefetch=1, timeout_s=1)
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
