"""What workers say reaches the driver's console, also after the process between them died."""

import os
import signal
import time

import pytest

from cbdm_scale.cluster.console import Console
from cbdm_scale.cluster.progress import Screen

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


def test_silence_is_no_failed_task(work) -> None:
    """Ray's dashboard shows what failed, and in a healthy run nobody should look there."""
    import ray
    from ray.util.state import list_tasks

    from cbdm_scale.cluster.connect import join

    join()
    job = ray.get_runtime_context().get_job_id()
    console = Console()
    with console.printing():
        time.sleep(1.5)
    deadline, states = time.monotonic() + 30, []
    while "FINISHED" not in states and time.monotonic() < deadline:
        time.sleep(0.5)
        states = [t.state for t in list_tasks(filters=[("job_id", "=", job)], limit=100)]
    ray.shutdown()  # this process alone leaves the cluster
    assert "FINISHED" in states and "FAILED" not in states


@pytest.mark.slow
def test_a_console_whose_process_is_killed_comes_back_under_the_same_handle(
    work,
) -> None:
    import ray

    from cbdm_scale.cluster.connect import join

    said: list[str] = []
    join()
    console = Console()
    console._screen = Screen(said.append)
    log, actor = console.log, console._lines

    def repeat_until_heard(word: str) -> None:
        while word not in said:  # what is said while the process starts may be lost
            log(word)
            time.sleep(0.2)

    with console.printing():
        repeat_until_heard("before")
        pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
        os.kill(pid, signal.SIGKILL)
        repeat_until_heard("after")
    ray.shutdown()  # this process alone leaves the cluster
