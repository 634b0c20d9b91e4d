"""Disks that fill up on the way, real ones: small file systems, mounted for one test each."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from balance_tools import NAME, balance, see_right
from sampling_tools import make_run, only_set
from shard_tools import contents

from cbdm_scale.balancing import writing
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.formats import files
from cbdm_scale.generation.store import ChunkStore
from cbdm_scale.sample import main as sample
from data_prep.writing.tars import ShardMaker


class Disk:
    """A file system of four megabytes, and a file that takes their room."""

    def __init__(self, place: Path) -> None:
        self.place, self.filler = place, place / "filler"

    def fill(self, left: int = 0) -> None:
        """Leave so many bytes."""
        self.filler.write_bytes(b"x" * (shutil.disk_usage(self.place).free - left))

    def make_room(self) -> None:
        self.filler.unlink()

    def full_when(self, patch: pytest.MonkeyPatch, owner: object, name: str, nth: int) -> None:
        """It fills up when a function is called for the nth time."""
        function: Callable[..., object] = getattr(owner, name)
        calls = 0

        def called(*args, **options):
            nonlocal calls
            calls += 1
            if calls == nth:
                self.fill()
            return function(*args, **options)

        patch.setattr(owner, name, called)


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield Disk(place)
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def run(tmp_path, tail_root, monkeypatch) -> str:
    see_right(monkeypatch)
    return make_run(tmp_path / "runs", tail_root, dataset="tail", row="small")


@pytest.mark.parametrize(
    ("place", "left", "said"),
    [
        ("samples", 0, "{disk}/set is full: .* Free space there and type the same command"),
        ("features", 12_288, r"features \({disk}\) is full: .* another with --features\."),
        ("cache", 0, r"CBDM_SCALE_CACHE \({disk}\) is full: .* another with CBDM_SCALE_CACHE"),
        ("scratch", 0, r"TMPDIR \({disk}/cbdm-balance-\w+\) is full: .* another with TMPDIR\."),
    ],
)
def test_wherever_it_is_full_balance_names_the_folder_and_goes_on_when_there_is_room(
    disk,
    run,
    classifiers,
    tmp_path,
    monkeypatch,
    capsys,
    place,
    left,
    said,
):
    features = disk.place if place == "features" else tmp_path / "features"
    words = ("--to", "12", "--filters", "none", "--features", str(features))
    where = str(disk.place)
    match place:
        case "samples":
            Path(run, "samples").symlink_to(disk.place)
            where = f"{run}/samples"
            said = said.replace("/set", r"/\S+")
        case "cache":
            monkeypatch.setenv("CBDM_SCALE_CACHE", where)
        case "scratch":
            monkeypatch.setattr("tempfile.tempdir", where)
    disk.fill(left)
    assert balance(run, classifiers, tmp_path / "out", *words) == 1
    error = capsys.readouterr().err
    assert re.search(said.replace("{disk}", re.escape(where)), error), error
    assert not (tmp_path / "out").exists()
    disk.make_room()
    assert balance(run, classifiers, tmp_path / "out", *words) == 0
    assert read_manifest(str(tmp_path / "out"), NAME).counts["train"] == (24, 12, 12)


def test_a_data_set_is_whole_or_not_there_and_so_are_its_further_forms(
    disk,
    run,
    classifiers,
    tmp_path,
    monkeypatch,
    capsys,
):
    words = ("--to", "12", "--filters", "none", "--samples-per-shard", "30")
    forms = ("--also", "folders", "npz")
    assert balance(run, classifiers, tmp_path / "roomy", *words, *forms) == 0
    stages = [
        (ShardMaker, "__call__", 2, {f".{NAME}.unfinished"}),
        (writing, "_write_folders", 1, {NAME}),
        (writing, "write_arrays", 1, {NAME, f"{NAME}-folders"}),
    ]
    for owner, name, nth, kept in stages:
        with monkeypatch.context() as patch:
            disk.full_when(patch, owner, name, nth)
            assert balance(run, classifiers, disk.place, *words, *forms) == 1
        error = capsys.readouterr().err
        said = rf"out \({disk.place}\S*\) is full: .* choose another with --out\."
        assert re.search(said, error), error
        assert {path.name for path in disk.place.iterdir()} == kept | {"filler"}
        disk.make_room()
    assert balance(run, classifiers, disk.place, *words, *forms) == 0
    assert contents(disk.place) == contents(tmp_path / "roomy")


def test_sample_too_goes_on_where_the_disk_was_full(disk, run, tmp_path, monkeypatch, capsys):
    words = ("--run", run, "--num-images", "30", "--chunk-size", "10", "--format", "npz")
    words += ("--cluster.workers", "0", "--out")
    assert sample([*words, str(tmp_path / "roomy")]) == 0
    for owner, name, nth in ((ChunkStore, "write", 2), (files, "write_arrays", 1)):
        with monkeypatch.context() as patch:
            disk.full_when(patch, owner, name, nth)
            assert sample([*words, str(disk.place)]) == 1
        error = capsys.readouterr().err
        said = rf"out \({disk.place}\S*\) is full: .* choose another with --out\."
        assert re.search(said, error), error
        assert not list(disk.place.rglob("*.npz*"))
        disk.make_room()
    assert sample([*words, str(disk.place)]) == 0
    assert "30 of 30 images are there already" in capsys.readouterr().out
    sets = [only_set(str(place)) for place in (tmp_path / "roomy", disk.place)]
    assert contents(sets[0].local_path()) == contents(sets[1].local_path())
