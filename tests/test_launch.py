"""Workers that stop for ever in a wait of the others are given up; what Ray tells is cut."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from cbdm_scale.cluster.connect import join
from cbdm_scale.cluster.launch import launch
from cbdm_scale.cluster.options import ClusterConfig, Log, RankMain
from cbdm_scale.storage.folder import Storage

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]


def stops_once(flag: Path) -> RankMain:
    """Rank 0 stops the first time, before it tells Ray of a checkpoint; rank 1 waits for it."""

    def rank_main(device: Any, published: Any, say: Log) -> dict[str, Any]:
        rank, size = dist.get_rank(), dist.get_world_size()
        if rank == 0 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        published("somewhere", {"images": 1.0})
        return {"went on": size}

    return rank_main


def test_a_worker_that_stops_in_a_report_is_given_up(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train waits in a barrier of its own there, where it would wait for ever."""
    import ray

    monkeypatch.setenv("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "unset")
    monkeypatch.delenv("RAY_TRAIN_COLLECTIVE_TIMEOUT_S")
    monkeypatch.setattr(sys.modules[launch.__module__], "MEETING_S", 10.0)
    join()
    config = ClusterConfig(workers=2, timeout_s=10, cpus_per_worker=0.5)
    returned = launch(stops_once(tmp_path / "stopped"), config, Storage(str(tmp_path)))
    ray.shutdown()
    assert (tmp_path / "stopped").exists() and returned == {"went on": 2}


def test_what_ray_tells_of_a_failure_is_cut_and_the_way_on_stays(
    work: Path, tmp_path: Path
) -> None:
    import ray

    def rank_main(device: Any, published: Any, say: Log) -> dict[str, Any]:
        raise ValueError("too long " * 2000)

    join()
    config = ClusterConfig(workers=1, max_failures=0, cpus_per_worker=0.5)
    with pytest.raises(RuntimeError, match=r"cluster.max_failures") as caught:
        launch(rank_main, config, Storage(str(tmp_path)))
    ray.shutdown()
    text = str(caught.value)
    assert len(text) < 1000 and "too long" in text and "The same command goes on" in text
