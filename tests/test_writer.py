"""One job at a time in a thread, whose error comes back to the caller."""

import threading

import pytest

from cbdm_scale.training.writer import Writer


def fail() -> None:
    raise OSError("disk full")


def test_start_waits_for_the_job_before_and_not_for_its_own() -> None:
    writer, go, done = Writer(), threading.Event(), []
    writer.start(lambda: (go.wait(30), done.append(1)))
    assert not done, "it would have waited for ever"
    writer.check()
    threading.Timer(0.05, go.set).start()
    writer.start(lambda: done.append(2))
    assert done[0] == 1
    writer.wait()
    assert done == [1, 2] and writer.seconds >= 0


@pytest.mark.parametrize("way", ["wait", "start", "check"])
def test_what_a_job_raises_is_raised_once_at_the_next_call(way: str) -> None:
    writer = Writer()
    writer.start(fail)
    thread = writer._thread
    assert thread is not None
    thread.join(30)
    with pytest.raises(OSError, match="disk full"):
        getattr(writer, way)(*[lambda: None] * (way == "start"))
    writer.wait()


def test_on_the_way_out_a_job_gets_its_time_and_no_more() -> None:
    writer, go, done = Writer(), threading.Event(), []
    writer.start(lambda: (go.wait(30), done.append(1)))
    writer.close(0.01)
    assert not done
    go.set()
    writer.close(30)
    assert done == [1]
