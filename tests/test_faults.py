"""What the table of faults says is what the lines of a run say."""

import random

import pytest

from benchmarks.faults.inject import moments, recovered
from benchmarks.faults.observed import SAVE_EVERY, Event, ObservedRun
from benchmarks.faults.table import cost, table
from benchmarks.hosts import Hosts

START = [Event(0, "workers"), Event(1, "step", 48), Event(2, "step", 96), Event(3, "step", 144)]


def test_images_after_the_checkpoint_are_computed_twice():
    after = [Event(5, "workers"), Event(6, "resumed", 96), Event(7, "step", 144)]
    found = cost([*START, *after, Event(8, "step", 192)], since=3.5, until=8)
    assert (found.restarts, found.twice, found.still_s) == (1, 48, 4)


def test_without_a_checkpoint_all_are_computed_twice():
    found = cost([*START, Event(5, "workers"), Event(7, "step", 48)], since=3.5, until=8)
    assert (found.restarts, found.twice) == (1, 144)


def test_a_fault_that_restarts_nothing_costs_its_pause():
    found = cost([*START, Event(23, "step", 192), Event(24, "step", 240)], 3.5, 30)
    assert (found.restarts, found.twice, found.still_s) == (0, 0, 20)


def test_two_restarts_in_one_fault_are_added_up():
    twice = [Event(5, "workers"), Event(6, "resumed", 96), Event(7, "step", 144)]
    again = [Event(9, "workers"), Event(10, "resumed", 0), Event(11, "step", 48)]
    assert cost([*START, *twice, *again], 3.5, 12).twice == 48 + 144


def test_recovered_is_a_step_beyond_all_before_by_new_workers(tmp_path):
    run = ObservedRun(Hosts(1), "run", tmp_path, "", 960)
    run.events = [*START, Event(4, "step", 192)]
    assert recovered(run, 3.5, 144, restarts=False)
    assert not recovered(run, 3.5, 144, restarts=True)
    run.events += [Event(5, "workers"), Event(6, "resumed", 96), Event(7, "step", 144)]
    assert not recovered(run, 3.5, 144, restarts=True)
    run.events += [Event(8, "step", 192)]
    assert recovered(run, 3.5, 144, restarts=True)


@pytest.mark.parametrize("count", [1, 5, 30])
def test_moments_are_one_in_each_part_and_none_at_the_ends(count):
    images = 2 * SAVE_EVERY * (count + 1)
    found = moments(count, images, random.Random(0))
    assert found == sorted(found) and len(set(found)) == count
    assert found[0] >= SAVE_EVERY and found[-1] < images - SAVE_EVERY
    assert found != moments(count, images, random.Random(1))


def test_the_table_counts_only_what_was_proven():
    worker = {"kind": "worker", "recovered": True, "proof": "gone", "twice": 96, "still_s": 9.6}
    not_there = {"kind": "no worker", "recovered": False, "why": "it was dead already"}
    lost = {"kind": "worker", "recovered": False, "proof": "gone", "why": "never came back"}
    one = {"faults": [worker, not_there, lost], "identical": True, "numbers": True}
    text = table({"worker": one | {"largest": 0.0}}, {"worker": "kill -9"})
    assert text.endswith("| kill -9 | 2 | 1 | 96 (96) | 10 (10) | identical | each once |")
    soak = one | {"identical": False, "numbers": False, "largest": 3e-6}
    rows = table({"soak": soak}, {"worker": "kill -9"}).splitlines()[2:]
    assert rows == [
        "| soak | 2 | 1 | 96 (96) | 10 (10) | losses to 3e-06 | NOT each once |",
        "| - kill -9 | 2 | 1 | 96 (96) | 10 (10) |  |  |",
    ]
