"""Where processes go in a cluster that counts GPUs, on a machine without any.

The GPUs are numbers that Ray hands out. NCCL is asked for, and gloo stands in for it.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray_tools import keep_cluster

from cbdm_scale.cluster.background import BackgroundWorker
from cbdm_scale.cluster.connect import connect as connect_to
from cbdm_scale.cluster.launch import launch
from cbdm_scale.cluster.node_probes import Nodes, Problem, check_gpus
from cbdm_scale.cluster.options import ClusterConfig, PoolConfig
from cbdm_scale.cluster.pool import run_jobs
from cbdm_scale.devices import gpu_names
from cbdm_scale.storage.folder import Storage

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs are numbers here"),
]


@pytest.fixture(scope="module", autouse=True)
def two_gpus():
    """A cluster of this machine that counts two GPUs, joined by the tests of this file."""
    import ray

    from cbdm_scale.cluster.connect import join

    with keep_cluster(gpus=2):
        join()
        yield
        ray.shutdown()


def wait_for_gpus(number: float) -> None:
    """Until so many are free: Ray counts them anew every now and then."""
    import ray

    deadline = time.monotonic() + 60
    while abs(ray.available_resources().get("GPU", 0) - number) > 1e-6:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)


def worker_of_a_fake_gpu() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What ``launch`` calls on a worker that is told it has a GPU, where torch finds none.

    Nested, so that it travels by value: workers do not know the tests.
    """

    def on_worker(loop_config: dict[str, Any]) -> dict[str, Any]:
        import torch
        import torch.distributed as dist

        from cbdm_scale.cluster.launch import _on_worker

        zeros, form_group = torch.zeros, dist.init_process_group

        def form(backend: str, **options: Any) -> None:
            assert backend == "nccl"
            os.environ["SECONDS"] = str(options["timeout"].total_seconds())
            form_group("gloo", **options)

        torch.cuda.set_device = lambda device: None
        torch.zeros = lambda *size, device=None, **more: zeros(*size, **more)
        dist.init_process_group = form
        return _on_worker(loop_config)

    return on_worker


def test_every_worker_has_one_gpu_and_an_evaluation_what_they_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ClusterConfig(
        workers=2, cpus_per_worker=0.5, gpus_per_worker=0.75, timeout_s=77, max_failures=0
    )

    def rank_main(device: Any, published: Any, say: Any) -> dict[str, Any]:
        import ray
        import torch.distributed as dist

        names = "CUDA_VISIBLE_DEVICES", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "SECONDS"
        ranks: list[Any] = [None] * 2
        dist.all_gather_object(ranks, [str(device), *(os.environ.get(name) for name in names)])
        found: dict[str, Any] = {"ranks": ranks}
        if dist.get_rank() == 0:
            deadline = time.monotonic() + 60
            while ray.available_resources().get("GPU", 0) > 0.5 + 1e-6:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            whole = BackgroundWorker(lambda *job: None, 0, 1, 1.0, say)
            beside = BackgroundWorker(lambda *job: None, 0, 1, config.gpus_beside, say)
            found["room"] = whole.has_room(), beside.has_room()
            beside.start("an evaluation")
            finished = None
            while finished is None:
                finished = beside.poll(5)
            found["reason"] = finished.reason
        dist.barrier()
        return found

    monkeypatch.setattr(sys.modules[launch.__module__], "_on_worker", worker_of_a_fake_gpu())
    found = launch(rank_main, config, Storage(str(tmp_path)))
    first, second = sorted(found["ranks"], key=lambda rank: rank[1])
    assert first == ["cuda:0", "0", "=lo", "lo", "77.0"]
    assert second == ["cuda:0", "1", "=lo", "lo", "77.0"]
    assert found["room"] == (False, True)
    assert "finds no NVIDIA driver" in found["reason"], "it was placed, and looked for its GPU"
    wait_for_gpus(2)


def test_more_workers_than_gpus_are_refused_before_anything_starts() -> None:
    with pytest.raises(
        ValueError, match=r"\(3\) needs as many GPUs.* has 2\. Try --cluster.wor"
    ):
        connect_to(ClusterConfig(workers=3, cpus_per_worker=0.1))
    connect_to(ClusterConfig(workers=2, cpus_per_worker=0.1))
    connect_to(ClusterConfig(workers=3, cpus_per_worker=0.1, device="cpu"))


def test_a_pools_worker_says_once_why_its_gpu_does_not_work() -> None:
    config = PoolConfig(workers=2, cpus_per_worker=0.5)
    with pytest.raises(RuntimeError, match=r"^torch .* (finds no NVIDIA driver|without CUDA)"):
        list(run_jobs(lambda device: lambda job: job, [1, 2], config, print))
    wait_for_gpus(2)


def test_gpus_that_do_not_work_are_said_before_workers_are_started() -> None:
    config = ClusterConfig(workers=2, cpus_per_worker=0.5)
    with pytest.raises(ValueError, match="2 GPUs for Ray, and none that works: .*--num-gpus 0"):
        check_gpus(config)
    check_gpus(replace(config, device="cpu"))
    wait_for_gpus(2)


def test_a_node_is_asked_about_gpus_by_a_process_that_sees_one() -> None:
    import ray

    class Holder:
        pass

    def visible() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    nodes = Nodes(60)
    try:
        assert nodes.num_gpus == [2]
        assert nodes.ask_gpus(visible) == ["0"]
        [problem] = nodes.ask_gpus(gpu_names)
        assert isinstance(problem, Problem) and "NVIDIA driver" in problem.reason
        assert len(nodes.ask([visible])) == 1, "asked on, of the processes without a GPU"
        nodes.close()
        wait_for_gpus(2)
        holder = ray.remote(num_gpus=2, num_cpus=0)(Holder).remote()
        wait_for_gpus(0)
        assert nodes.ask_gpus(visible) == [None], "all are taken: nobody waits"
        ray.kill(holder)
    finally:
        nodes.close()
