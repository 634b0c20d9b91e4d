"""What workers say reaches the driver's console, also after the process between them died."""

import os
import signal
import time

import pytest

from cbdm_scale.cluster.console import Console

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]


def test_a_console_whose_process_is_killed_comes_back_under_the_same_handle(
    work, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    from cbdm_scale.cluster.connect import join

    join()
    console = Console()
    say, actor = console.say, console._queue.actor
    said = ""
    with console.printing():
        say("before")
        while "before" not in said:
            said += capsys.readouterr().out
        pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
        os.kill(pid, signal.SIGKILL)
        while "after" not in said:  # what is said while it starts may be lost
            say("after")
            time.sleep(0.2)
            said += capsys.readouterr().out
    ray.shutdown()  # this process alone leaves the cluster
