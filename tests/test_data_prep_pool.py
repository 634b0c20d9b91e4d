"""Calls for many items, and what is said meanwhile."""

import os

import pytest

from cbdm_scale.storage.folder import Storage
from data_prep.writing.pool import Sees, run


@pytest.mark.parametrize("workers", [0, None])
def test_every_item_is_taken_once_and_quick_work_stays_in_this_process(workers):
    def call(item):
        return item, os.getpid()

    said = []
    done = sorted(run(call, range(20), workers, said.append))
    assert done == [(i, os.getpid()) for i in range(20)]
    chosen = ["about 0 s, in this process: little work is done before Ray starts"]
    assert said == ([] if workers == 0 else chosen), "who typed it knows"
    assert list(run(call, [], workers, pytest.fail)) == []


def test_error_of_a_call_stops_the_others():
    taken = []

    def call(item):
        taken.append(item)
        if item == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        list(run(call, range(20), 0, pytest.fail))
    assert taken == [0, 1, 2, 3]


def test_node_gets_work_only_if_it_sees_what_is_written_and_read(tmp_path):
    (tmp_path / "started").touch()
    target = Storage(str(tmp_path))
    assert Sees(target, "started")()
    assert Sees(target, "started", tmp_path / "started")()
    assert not Sees(target, "other")()
    assert not Sees(target, "started", tmp_path / "no/such/folder")()
    assert not Sees(target.child("nowhere"), "started")()
