"""A job beside training: on Ray, killed once, killed twice, and in a run as users have it."""

import os
import signal
from pathlib import Path

import pytest
from ray_tools import command, final_files, logged_steps, run, start, wait_for

from cbdm_scale.cluster.background import BackgroundWorker

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def wait(beside: BackgroundWorker):
    while True:
        finished = beside.poll(60)
        if finished is not None:
            assert not beside.is_busy
            return finished


def test_a_process_that_dies_is_replaced_once_and_then_named(work: Path, tmp_path: Path):
    from cbdm_scale.cluster.connect import join

    join()
    said, folder = [], str(tmp_path)

    def do(device, job, tell):
        tell(0.5)
        if job == "wrong":
            raise ValueError("it is wrong")
        first_time = os.path.join(folder, job)
        if job == "hopeless" or not os.path.exists(first_time):
            open(first_time, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{device} {os.environ['OMP_NUM_THREADS']}"

    beside = BackgroundWorker(do, 0.1, 1, 0.0, said.append)
    assert beside.has_room()
    beside.start("unlucky")
    assert wait(beside).result == "cpu 1"
    assert len(said) == 1 and "died and is replaced" in said[0]
    beside.start("hopeless")
    assert "its process died 2 times: " in wait(beside).reason
    beside.start("wrong")
    assert wait(beside).reason == "ValueError: it is wrong"

    crowded = BackgroundWorker(do, 100, 1, 0.0, said.append)
    assert not crowded.has_room()
    crowded.start("unlucky")
    assert crowded.poll(0.5) is None and crowded.place() == ""
    assert crowded.progress().startswith("starting")
    crowded.close()
    assert not crowded.is_busy
    import ray

    ray.shutdown()  # this process alone leaves the cluster


@pytest.mark.slow
def test_evaluations_beside_training_leave_the_files_and_weights_of_those_in_it(work: Path):
    """Also where the process that makes them is killed once, with -9, and so is the driver."""
    images, every = 1_920, ("--train.eval-every", "480", "--train.save-every", "480")
    few = ("--cluster.cpus-per-worker", "0.5", "--eval.num-images", "200")

    def words(name: str, *more: str) -> list[str]:
        return [*command(work, name, 2, images), *every, *few, *more]

    def evaluations(name: str) -> dict[str, bytes]:
        return {
            file.parent.name: file.read_bytes().replace(name.encode(), b"run")
            for file in (work / "runs" / name / "evaluation").glob("*/metrics.json")
        }

    run(words("inside", "--eval.background", "never"))
    log = work / "beside.log"
    driver = start(words("beside"), log)
    told = "evaluating 480 images beside training on "
    wait_for(lambda: told in log.read_text())
    line = next(line for line in log.read_text().splitlines() if told in line)
    os.kill(int(line.rpartition(":")[2]), signal.SIGKILL)
    wait_for(lambda: "died and is replaced" in log.read_text())
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    run(words("beside"))
    assert evaluations("beside") == evaluations("inside")
    assert len(evaluations("beside")) == 4
    assert final_files(work, "beside", images) == final_files(work, "inside", images)
    assert logged_steps(work, "beside", "eval/guidance_1/fid") == [480, 960, 1440, 1920]
