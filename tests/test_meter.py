import time

import pytest
import torch

from cbdm_scale.training.distributed import World
from cbdm_scale.training.meter import Meter, sums_of


class TwoAlike(World):
    """A world in which another rank always says the same."""

    size = 2

    def sum(self, values):
        return 2 * values


def terms(*values):
    """The sums of a term and of its half over some images, and their number."""
    total = torch.tensor(values)
    return sums_of({"total": total, "dm": total / 2}), len(values)


@pytest.mark.parametrize("world", [World(), TwoAlike()])
def test_losses_are_means_over_images_and_ranks(world):
    meter = Meter(world)
    meter.add(*terms(1.0, 2.0, 3.0))
    meter.add(*terms(6.0))
    numbers = meter.read()
    assert numbers["loss/total"] == 3 and numbers["loss/dm"] == 1.5


def test_a_reading_begins_anew():
    meter = Meter(World())
    meter.add(*terms(100.0))
    meter.read()
    meter.add(*terms(1.0))
    assert meter.read()["loss/total"] == 1


def test_speed_counts_the_images_of_all_ranks():
    one, two = Meter(World()), Meter(TwoAlike())
    for meter in (one, two):
        meter.start -= 1000  # as if begun then
        meter.add(*terms(*range(10)))
    assert one.read()["images_per_second"] == pytest.approx(0.01, rel=0.1)
    assert two.read()["images_per_second"] == pytest.approx(0.02, rel=0.1)


def test_waiting_is_a_share_of_the_time_that_was_training():
    meter = Meter(World())
    with meter.waiting():
        time.sleep(0.02)
    with meter.paused():
        time.sleep(0.05)
    meter.add(*terms(1.0))
    paused, waited = meter.paused_for, meter.waited
    assert paused >= 0.05 and waited >= 0.02
    elapsed = time.perf_counter() - meter.start
    numbers = meter.read()
    assert waited / elapsed < numbers["data_wait"] <= 1
    assert numbers["paused_s"] == pytest.approx(paused)
    meter.add(*terms(1.0))
    assert meter.read()["paused_s"] == 0


def test_memory_is_the_mean_over_ranks_in_gib():
    for world in (World(), TwoAlike()):
        meter = Meter(world)
        meter.add(*terms(1.0))
        assert 0.05 < meter.read()["memory_gib"] < 64
