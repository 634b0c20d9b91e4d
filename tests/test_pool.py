"""Jobs on real Ray workers, which are really killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch
from ray_tools import run as run_command
from ray_tools import start, wait_for
from sampling_tools import make_run, only_set

from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.cluster.pool import place, run_jobs


def squares(device):
    """Nested, so that it travels by value: workers do not know the tests."""
    import torch

    threads = torch.get_num_threads()

    def square(job):
        return job * job, threads

    return lambda job: square(job)


def test_jobs_are_done_here_without_ray_on_the_threads_that_were_asked_for():
    import torch

    before = torch.get_num_threads()
    config = PoolConfig(workers=0, cpus_per_worker=2, device="cpu")
    assert list(run_jobs(squares, [3, 1], config)) == [(3, (9, 2)), (1, (1, 2))]
    assert torch.get_num_threads() == before
    assert list(run_jobs(squares, [], PoolConfig())) == []


LITTLE_WORK = """
from cbdm_scale.cluster.connect import in_cluster
from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.cluster.pool import run_jobs
from test_pool import squares
said = []
done = run_jobs(squares, range(5), PoolConfig(device="cpu"), said.append)
assert [job for job, _ in done] == list(range(5)) and not in_cluster()
assert len(said) == 1 and "this process" in said[0], said
"""


def test_little_work_on_one_machine_is_done_here_and_said_in_one_line():
    """In a process of its own: this one may be in the tests' cluster."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"RAY_ADDRESS": "local", "PYTHONPATH": paths}
    command = [sys.executable, "-c", LITTLE_WORK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_work_that_turns_out_to_be_long_goes_on_on_workers(monkeypatch) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(import_module("cbdm_scale.cluster.pool"), "WORTH_RAY_S", 0.0)
    said: list[str] = []
    freed: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(len(said)))
    config = PoolConfig(cpus_per_worker=0.5)

    def square_of(device):  # nested, so that it travels by value
        return lambda job: job * job

    done = list(run_jobs(square_of, [1, 2, 3, 4, 5], config, said.append, leave=True))
    assert sorted(done) == [(n, n * n) for n in (1, 2, 3, 4, 5)]
    assert "this process" in said[0] and "starting" in said[1]
    assert freed == [2], "memory of a GPU, before a worker needs it"
    assert not ray.is_initialized()


def test_as_many_workers_as_fit_and_no_more_than_jobs():
    four = {"CPU": 4.0}
    assert place(PoolConfig(), four, 100) == (4, False)
    assert place(PoolConfig(), four, 3) == (3, False)
    assert place(PoolConfig(cpus_per_worker=0.5), four, 100) == (8, False)
    assert place(PoolConfig(workers=2), four, 100) == (2, False)
    assert place(PoolConfig(), four | {"GPU": 2.0}, 100) == (2, True)
    assert place(PoolConfig(device="cpu"), four | {"GPU": 2.0}, 100) == (4, False)
    with pytest.raises(ValueError, match=r"cluster.workers \(5\) x .* the cluster has 4 CPUs"):
        place(PoolConfig(workers=5), four, 100)
    with pytest.raises(ValueError, match="and 1 GPUs, the cluster has 4 CPUs and 0 GPUs"):
        place(PoolConfig(workers=1, device="gpu"), four, 100)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_killed_workers_are_replaced_and_what_a_job_raises_is_raised_here(
    work: Path, tmp_path: Path
) -> None:
    config, said = PoolConfig(workers=2, cpus_per_worker=0.5), []
    folder = str(tmp_path)

    def setup(device):
        def do(job):
            first_time = os.path.join(folder, str(job))
            if job == 3 and not os.path.exists(first_time):
                open(first_time, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            if job == 99:
                raise ValueError("job 99 is wrong")
            return job * job

        return do

    done = dict(run_jobs(setup, list(range(6)), config, said.append))
    assert done == {job: job * job for job in range(6)}
    assert sum("a worker died and is replaced" in line for line in said) == 1
    with pytest.raises(ValueError, match="^job 99 is wrong$"):
        list(run_jobs(setup, [99], config, said.append))

    def hopeless(device):
        return lambda job: os.kill(os.getpid(), signal.SIGKILL)

    few = PoolConfig(workers=1, cpus_per_worker=0.5, max_failures=1)
    with pytest.raises(
        RuntimeError, match=r"(?s)^2 workers died.* cluster.max_failures \(1\) is how many"
    ):
        list(run_jobs(hopeless, [1], few, said.append))
    none = PoolConfig(workers=1, cpus_per_worker=0.5, max_failures=0)
    with pytest.raises(RuntimeError, match="(?s)^1 workers died.* Take fewer.$"):
        list(run_jobs(hopeless, [1], none, said.append, advice="Take fewer."))
    import ray

    said.clear()
    config = PoolConfig(cpus_per_worker=0.5)
    ray.shutdown()  # this process alone leaves the cluster
    more = {"at_most": 1, "sees": lambda: True, "leave": True}
    kept = run_jobs(setup, [0, 1, 2], config, said.append, **more)
    assert dict(kept) == {0: 0, 1: 1, 2: 4}
    assert len([line for line in said if line.startswith("worker (host:pid)")]) == 1
    assert not ray.is_initialized()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_kills_and_restarts_change_no_bit_of_a_set(work: Path, tmp_path: Path) -> None:
    """kill -9 of a worker, then of the driver; then the same command on more workers."""
    run = make_run(tmp_path / "runs", str(work / "shards"))

    def command(out: str, workers: int) -> list[str]:
        options = ("--num-images", "240", "--sample.num-steps", "40", "--format", "npz")
        place = ("--out", str(tmp_path / out), "--cluster.workers", str(workers))
        few = ("--cluster.cpus-per-worker", "0.5")
        words = (sys.executable, "-m", "cbdm_scale.sample", "--run", run)
        return [*words, *options, *place, *few]

    def made(out: str) -> int:
        return len(list((tmp_path / out).glob("*/chunks/*.safetensors")))

    run_command(command("here", 0))
    assert "240 made now" in run_command(command("one", 1))

    log = tmp_path / "log"
    driver = start(command("killed", 2), log)
    wait_for(lambda: made("killed") >= 2)
    lines = [line for line in log.read_text().splitlines() if line.startswith("worker (")]
    os.kill(int(lines[0].rpartition(":")[2]), signal.SIGKILL)
    wait_for(lambda: "a worker died and is replaced" in log.read_text())
    seen = made("killed")
    wait_for(lambda: made("killed") > seen)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(1)
    assert 3 <= made("killed") < 30
    assert "images are there already" in run_command(command("killed", 3))

    sets = [only_set(str(tmp_path / out)) for out in ("here", "one", "killed")]
    bytes_of = [s.read_bytes("images-240.npz") for s in sets]
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ray_workers_evaluate_to_the_bytes_of_one_process(
    work: Path, tmp_path: Path
) -> None:
    noise = make_run(tmp_path / "runs", str(work / "shards"))
    words = [sys.executable, "-m", "cbdm_scale.evaluate", "--run", noise, "--num-images", "60"]
    found = []
    for workers in ("0", "2"):
        place = tmp_path / workers
        more = ["--out", str(place), "--features", str(place / "features")]
        pool = ["--cluster.workers", workers, "--cluster.cpus-per-worker", "0.9"]
        assert "metrics" in run_command([*words, *more, *pool])
        [metrics_file] = place.glob("*/metrics.json")
        found.append(metrics_file.read_bytes())
        shutil.rmtree(f"{noise}/samples")
    assert found[0] == found[1]
