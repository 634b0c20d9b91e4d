"""The folder that is written to, local or of a store: the same answers, whole files."""

import uuid

import pytest
from process_tools import sent

from data_prep.writing.target import Target


@pytest.fixture(params=["local", "store"])
def target(request, tmp_path):
    is_local = request.param == "local"
    return Target(str(tmp_path / "out") if is_local else f"memory://{uuid.uuid4().hex}")


def test_what_is_written_is_there_until_it_is_removed(target):
    assert target.names() == target.names("a") == []
    assert target.size("a/x") is None
    with pytest.raises(FileNotFoundError):
        target.read("a/x")
    target.write("a/x", b"one")
    target.write("a/x", b"other")
    sent(target).write("a/b/y", b"")
    assert target.names() == ["a/b/y", "a/x"] and target.names("a/b") == ["a/b/y"]
    assert (target.size("a/x"), target.read("a/x"), target.size("a/b/y")) == (5, b"other", 0)
    target.remove("a/x")
    target.remove("a/x")
    assert target.names() == ["a/b/y"]
    target.remove("")
    assert target.names() == []


def test_a_draft_is_whole_or_leaves_the_old_file(target):
    target.write("work/started", b"")
    target.write("x", b"old")
    with pytest.raises(KeyError), target.draft("x", "work") as path:
        path.write_bytes(b"half")
        raise KeyError
    assert target.read("x") == b"old"
    with target.draft("x", "work") as path:
        path.write_bytes(b"new")
        assert target.read("x") == b"old"
    assert target.read("x") == b"new" and not path.exists()
    assert target.names() == ["work/started", "x"]


def test_a_rename_that_fails_leaves_what_is_there(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError):
        Target(str(tmp_path)).write("x", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_relative_folder_is_that_of_the_moment(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Target("out").write("x", name.encode())
    assert (tmp_path / "a/out/x").read_bytes() == b"a"
    assert (tmp_path / "b/out/x").read_bytes() == b"b"
