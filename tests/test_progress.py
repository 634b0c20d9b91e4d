"""What is said of long work: lines in a log, a bar on a terminal."""

import builtins
import io
import pickle
import sys
import time

import pytest
from process_tools import sent

from cbdm_scale.cluster import progress
from cbdm_scale.cluster.progress import ProgressBar, ProgressLine, Screen, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_say_how_far_how_fast_and_how_long_still():
    said = []
    work = ProgressBar(3000, "images", said.append, start=1000, every_s=0)
    work._began -= 10  # as if begun then
    work.add(1000)
    work.add(1000)
    assert said[0].startswith("    2,000/3,000 images | 1") and said[0].endswith(
        "/s | 0:10 left"
    )
    assert said[1].startswith("    3,000/3,000 images | ") and said[1].endswith(
        "/s | 0:00 left"
    )
    assert (said[0].done, said[0].total) == (2000, 3000)
    assert 190 < work.rate < 201


def test_lines_come_now_and_then_and_short_work_says_nothing():
    with ProgressBar(3, "images", pytest.fail) as work:
        for _ in range(3):
            work.add(1)
    said = []
    work = ProgressBar(3, "images", said.append)
    work._shown -= 5
    work.add(1)
    work.add(1)
    assert len(said) == 1
    work.add(1)  # the last one is said where others were
    assert len(said) == 2


def test_silence_is_broken(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE_S", 0.0)
    said = []
    with ProgressBar(10, "shards", said.append):
        deadline = time.monotonic() + 30
        while not said and time.monotonic() < deadline:
            time.sleep(0.05)
    assert said[0] == "        0/10 shards | 0/s | ? left"


def test_what_is_left_may_be_more_than_the_pieces():
    said = []
    work = ProgressBar(10, "images", said.append, every_s=0, left=lambda s: f"{s > 0} and 5")
    work._began -= 10
    work.add(5)
    assert said[0].endswith("/s | True and 5")


def test_the_clock_starts_when_the_workers_do():
    said = []
    work = ProgressBar(10, "images", said.append)
    work._began -= 1000
    work.log("a worker")
    work.add(1)
    assert work.rate > 0.1 and said == ["a worker"]
    work._began -= 1000
    work.log("another worker")  # the others go on meanwhile
    assert work.rate < 0.1


def test_a_log_gets_no_escapes_and_a_terminal_one_bar_below_the_lines(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with ProgressBar(1000, "images", every_s=0) as work:
        work.log("before")
        work._shown -= 1
        work.add(500)
        work.log("between")
        work.add(500)
    text = terminal.getvalue()
    assert text.startswith("before\n") and "between\n" in text
    assert "\r 50% " in text and "1,000/1,000 images" in text.rpartition("\r")[2]
    said = []
    Screen(said.append).show(ProgressLine("5/10 images", 5, 10))
    assert said == ["5/10 images"] and not Screen(said.append).is_terminal


def test_lines_of_workers_arrive_with_their_numbers(capsys):
    line = pickle.loads(pickle.dumps(ProgressLine("half", 1, 2)))
    assert (line, line.done, line.total) == ("half", 1, 2)
    Screen().show(line)
    assert capsys.readouterr().out == "half\n"


def test_clock():
    assert [clock(s) for s in (0.9, 65, 3600)] == ["0:00", "1:05", "1:00:00"]


def test_a_bar_stands_whatever_ray_makes_of_print(monkeypatch):
    """A driver that shows a line of a worker has its ``print`` replaced by Ray."""
    monkeypatch.setattr(builtins, "print", lambda *text, **how: None)
    monkeypatch.setattr(sys, "stdout", Terminal())
    work = ProgressBar(3, "images")
    assert work.screen.is_terminal
    work.log("a line")
    assert sys.stdout.getvalue() == ""  # printed by what is print now
    assert sent(work).done == 0


def test_what_shows_progress_can_be_sent_and_goes_on_there(monkeypatch):
    """Tune pickles a search, whose bar may be on the screen already."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    work = ProgressBar(3, "images")
    work.add(1)
    work.show()
    there = sent(work)
    assert (there.done, there.total) == (1, 3) and there.screen._bar is None
    work.screen.close()
