"""Storage: the same behaviour on a local folder and on a store without rename."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from process_tools import sent

from cbdm_scale.storage.folder import Storage


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "a store"))
    return Storage(f"memory://{uuid.uuid4().hex}/store")


def add(store: Storage, name: str, data: bytes) -> None:
    with store.open_append(name) as file:
        store.write_all(file, data)


def test_what_is_written_is_read(store: Storage) -> None:
    store.write_bytes("deep/er/x.bin", b"\x00\xff")
    store.write_json("run.json", {"a": [1, None]})
    assert store.read_bytes("deep/er/x.bin") == b"\x00\xff"
    assert store.read_json("run.json") == {"a": [1, None]}
    assert store.read_text("run.json").endswith("}\n")
    assert store.size("deep/er/x.bin") == 2
    assert store.child("deep").child("er").read_bytes("x.bin") == b"\x00\xff"
    assert store.exists("deep/er") and store.exists() and not store.exists("nothing")


def test_list_gives_sorted_names_of_this_folder_only(store: Storage) -> None:
    assert store.list() == []
    for name in "b.txt", "folder/inner.txt", "a.txt":
        store.write_bytes(name, b"1")
    assert store.list() == ["a.txt", "b.txt", "folder"]
    store.write_bytes("c.txt", b"1")
    assert "c.txt" in store.list()  # no listing is cached


def test_writing_again_replaces_the_whole_file(store: Storage) -> None:
    store.write_bytes("x", b"a long text")
    store.write_bytes("x", b"short")
    assert store.read_bytes("x") == b"short"
    assert store.list() == ["x"]


def test_remove_takes_files_and_folders_and_misses_nothing(store: Storage) -> None:
    store.write_bytes("folder/x", b"1")
    store.write_bytes("y", b"1")
    store.remove("folder")
    store.remove("y")
    store.remove("never there")
    assert store.list() == []


def test_files_are_those_here_and_below(store: Storage) -> None:
    assert store.files() == []
    for name in "b/inner.txt", "a.txt", "b/c/x":
        store.write_bytes(name, b"1")
    assert store.files() == ["a.txt", "b/c/x", "b/inner.txt"]
    assert store.child("b").files() == ["c/x", "inner.txt"]
    store.remove("")
    assert store.files() == []


def test_a_missing_file_is_a_file_not_found_error(store: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        store.read_bytes("nothing")


def test_check_writable_leaves_nothing_behind(store: Storage) -> None:
    store.check_writable()
    assert store.list() == []


def test_check_writable_makes_no_folders(tmp_path: Path) -> None:
    Storage(str(tmp_path / "new" / "er")).check_writable()
    assert list(tmp_path.iterdir()) == []


def test_storage_that_cannot_be_written_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = Storage(str(tmp_path / "file" / "runs"))
    with pytest.raises(ValueError, match=r"cluster\.storage \(.*file/runs\) is not writable: "):
        store.check_writable()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_unknown_scheme_names_the_option() -> None:
    with pytest.raises(ValueError, match=r"cluster\.storage \(nowhere://x\)"):
        Storage("nowhere://x").check_writable()
    with pytest.raises(ValueError, match=r"cluster\.storage is empty"):
        Storage("")
    with pytest.raises(ValueError, match="AWS_ENDPOINT_URL"):
        Storage("s3://bucket/runs?endpoint_override=localhost")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_names_the_option_and_the_way_out() -> None:
    with pytest.raises(OSError, match=r"cluster\.storage \(/dev\) is full: .*--cluster\.stor"):
        add(Storage("/dev"), "full", b"x")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    Storage(str(tmp_path)).write_bytes("x", b"old")
    code = (
        "import resource, sys; from cbdm_scale.storage.folder import Storage\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "Storage(sys.argv[1]).write_bytes('x', b'n' * 5000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert f"cluster.storage ({tmp_path}) takes no file as large as this" in done.stderr
    assert Storage(str(tmp_path)).read_bytes("x") == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_local_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage("runs/").url == str(tmp_path / "runs")
    assert Storage(f"file://{tmp_path}").url == str(tmp_path)
    assert Storage("~/runs").url == os.path.expanduser("~/runs")
    assert Storage("runs").local_path("x") == tmp_path / "runs" / "x"
    assert Storage("memory://a/b/").path("c") == "memory://a/b/c"


def test_append_adds_and_move_renames(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    add(store, "log", b"1\n")
    add(store, "log", b"2\n")
    assert store.read_bytes("log") == b"1\n2\n"
    store.write_bytes("draft/x", b"1")
    store.move("draft", "checkpoints/1000")
    assert store.list() == ["checkpoints", "log"]
    assert store.read_bytes("checkpoints/1000/x") == b"1"


def test_ray_sees_the_same_files_through_pyarrow(store: Storage) -> None:
    store.write_bytes("x", b"from us")
    fs, path = store.pyarrow_filesystem()
    with fs.open_input_stream(f"{path}/x") as file:
        assert file.read() == b"from us"
    with fs.open_output_stream(f"{path}/y") as file:
        file.write(b"from ray")
    assert store.read_bytes("y") == b"from ray"


def test_storage_travels_to_workers(store: Storage) -> None:
    store.list()
    assert sent(store) == store


def test_a_relative_folder_is_that_of_the_moment(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Storage("out").write_bytes("x", name.encode())
    assert (tmp_path / "a/out/x").read_bytes() == b"a"
    assert (tmp_path / "b/out/x").read_bytes() == b"b"


def test_an_error_names_the_option_that_the_folder_came_by():
    with pytest.raises(ValueError, match=r"out \(nowhere://x\) cannot be opened.*--out\."):
        Storage("nowhere://x", "out").exists()
    with pytest.raises(ValueError, match="out is empty"):
        Storage("", "out")
