"""A large file on its way into a folder, local or of a store: whole, or not there."""

import uuid

import pytest
from process_tools import sent

from cbdm_scale.storage.folder import Storage
from data_prep.writing.draft import draft


@pytest.fixture(params=["local", "store"])
def target(request, tmp_path):
    is_local = request.param == "local"
    return Storage(str(tmp_path / "out") if is_local else f"memory://{uuid.uuid4().hex}", "out")


def test_a_draft_is_whole_or_leaves_the_old_file(target):
    target.write_bytes("work/started", b"")
    target.write_bytes("a/x", b"old")
    with pytest.raises(KeyError), draft(target, "a/x", "work") as path:
        path.write_bytes(b"half")
        raise KeyError
    assert target.read_bytes("a/x") == b"old"
    with draft(sent(target), "a/x", "work") as path:
        path.write_bytes(b"new")
        assert target.read_bytes("a/x") == b"old"
    assert target.read_bytes("a/x") == b"new" and not path.exists()
    assert target.files() == ["a/x", "work/started"]


def test_a_rename_that_fails_leaves_what_is_there(tmp_path):
    for folder in ("x", "work"):
        (tmp_path / folder).mkdir()
    target = Storage(str(tmp_path))
    with pytest.raises(OSError), draft(target, "x", "work") as path:
        path.write_bytes(b"new")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["work", "x"]
