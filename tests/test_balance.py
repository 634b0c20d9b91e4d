"""The balance command in one process, on a network that has learnt nothing."""

import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from balance_tools import COUNTS, NAME, balance, save_random, see_right
from PIL import Image
from sampling_tools import make_run
from shard_tools import contents

from cbdm_scale.balancing import writing
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.metrics.sources import open_images
from cbdm_scale.recognition.sets import find_sets
from data_prep.checking.verify import verify
from data_prep.writing.encode import MADE_BY_A_MODEL
from data_prep.writing.tars import ShardMaker


@pytest.fixture
def run(tmp_path, tail_root) -> str:
    return make_run(tmp_path / "runs", tail_root, dataset="tail", row="small")


@pytest.fixture
def seen_right(monkeypatch):
    see_right(monkeypatch)


def samples_of(folder: Path) -> dict[str, dict[str, bytes]]:
    """Key -> suffix -> bytes of all training samples."""
    found: dict[str, dict[str, bytes]] = {}
    for shard in sorted(folder.glob("train/*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = tar.extractfile(member).read()
    return found


def test_a_run_that_has_not_learnt_its_labels_is_refused_with_the_number(
    run, classifiers, tmp_path, capsys
):
    assert balance(run, classifiers, tmp_path / "out", "--to", "12") == 1
    error = capsys.readouterr().err
    assert f"run ({run}) has not learnt its labels:" in error and "--force" in error
    assert "% of 18 generated images" in error
    assert not (tmp_path / "out").exists()


def test_what_is_made_is_a_data_set_with_a_record_of_every_generated_image(
    run, classifiers, tail_root, tmp_path, seen_right, capsys
):
    words = ("--to", "12", "--filters", "none", "--also", "folders", "npz")
    assert balance(run, classifiers, tmp_path, *words) == 0
    out = capsys.readouterr().out
    real, made = read_manifest(tail_root, "tail"), read_manifest(str(tmp_path), NAME)
    assert (made.counts["train"], made.counts["eval"]) == ((24, 12, 12), real.counts["eval"])
    assert (made.groups, made.real_counts) == (real.groups, COUNTS)
    assert not verify(str(tmp_path), NAME).wrong

    samples = samples_of(tmp_path / NAME)
    generated = {key: s for key, s in samples.items() if "json" in s}
    assert len(generated) == 13 and len(samples) == 48
    index, theirs = (
        open_index(*p, "train") for p in ((str(tmp_path), NAME), (tail_root, "tail"))
    )
    keys = {theirs.key(row) for row in range(theirs.num_samples)}
    assert set(samples) - set(generated) == keys
    reader = ShardReader(str(tmp_path), NAME, index)
    for row in range(index.num_samples):
        sample = samples[index.key(row)]
        picture = Image.open(io.BytesIO(sample["png"]))
        assert np.array_equal(reader.load(row).transpose(1, 2, 0), np.asarray(picture))
        assert ("xmp" in picture.info) == ("json" in sample)
        if "json" in sample:
            about = json.loads(sample["json"])
            assert MADE_BY_A_MODEL.encode() in picture.info["xmp"]
            assert about["label"] == index.labels[row] == int(sample["cls"])
            assert about["run"] == "noise" and len(about["weights_sha256"]) == 64
            assert {"seed", "strength", "confidence", "distance"} <= set(about)
            assert about["nearest_real"] in keys

    table = pq.read_table(tmp_path / NAME / "provenance.parquet").to_pylist()
    assert {row["key"] for row in table if row["accepted"]} == set(generated)
    page = (tmp_path / NAME / "balance.html").read_text()
    assert "13 generated images" in page and "data:image/png" in page
    assert "13 of them generated" in out
    assert f"--dataset {NAME} --data.root {tmp_path}" in out

    learnt = find_sets(str(tmp_path), NAME, [], "all").learnt
    assert learnt == "35 real images and the data set's 13 generated ones"

    folders = open_images(str(tmp_path / f"{NAME}-folders"))
    assert np.bincount(folders.labels).tolist() == [24, 12, 12]
    lines = (tmp_path / f"{NAME}-folders" / "labels.csv").read_text().splitlines()
    assert len(lines) == 1 + 48 and lines[0] == "path,label,generated,about"
    npz = open_images(str(tmp_path / f"{NAME}.npz"))
    assert np.array_equal(np.sort(npz.labels), np.sort(folders.labels))


def test_the_same_command_says_what_is_there_and_another_one_is_refused(
    run, classifiers, tmp_path, seen_right, capsys
):
    words = ("--to", "11", "--filters", "none")
    assert balance(run, classifiers, tmp_path / "a", *words) == 0
    first = contents(tmp_path / "a")
    capsys.readouterr()
    assert balance(run, classifiers, tmp_path / "a", *words) == 0
    assert "is there: " in capsys.readouterr().out and contents(tmp_path / "a") == first
    assert balance(run, classifiers, tmp_path / "a", *words, "--also", "npz") == 0
    assert contents(tmp_path / "a").keys() - first.keys() == {f"{NAME}.npz"}
    first = contents(tmp_path / "a")
    capsys.readouterr()
    assert balance(run, classifiers, tmp_path / "a", *words, "--seed", "5") == 1
    assert "is another data set. Give another --out" in capsys.readouterr().err
    assert contents(tmp_path / "a") == first
    assert (
        balance(run, classifiers, tmp_path / "a", *words, "--seed", "5", "--force-overwrite")
        == 0
    )
    assert contents(tmp_path / "a") != first


def test_killed_on_the_way_it_ends_in_the_same_bytes(
    run, classifiers, tmp_path, seen_right, monkeypatch, capsys
):
    words = ("--to", "14", "--filters", "duplicates", "--samples-per-shard", "30")
    assert balance(run, classifiers, tmp_path / "whole", *words) == 0
    for chunk in sorted(Path(run, "samples").glob("*/chunks/*"))[1:]:
        chunk.unlink()  # only the first one was made
    make = ShardMaker.__call__

    def killed(maker, shard):
        if shard.number == 1:
            raise KeyboardInterrupt
        return make(maker, shard)

    with monkeypatch.context() as patch:
        patch.setattr(ShardMaker, "__call__", killed)
        assert balance(run, classifiers, tmp_path / "out", *words) != 0
    assert "10 of 20 images are there already" in capsys.readouterr().out
    assert not (tmp_path / "out" / NAME).exists()
    assert balance(run, classifiers, tmp_path / "out", *words) == 0
    assert "shards are there already: continuing" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_make_the_bytes_of_one_process(
    run, classifiers, work, tmp_path, seen_right
):
    words = ("--to", "26", "--filters", "duplicates")
    assert balance(run, classifiers, tmp_path / "one", *words) == 0
    shutil.rmtree(f"{run}/samples")
    more = ("--cluster.workers", "2", "--cluster.cpus-per-worker", "0.5")
    features = ("--features", str(tmp_path / "features"))
    assert balance(run, classifiers, tmp_path / "two", *words, *more, *features) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_it_goes_to_urls_too(run, classifiers, tmp_path, seen_right):
    words = ("--to", "4", "--filters", "none", "--also", "npz")
    assert balance(run, classifiers, "memory://balanced", *words) == 0
    assert balance(run, classifiers, tmp_path, *words) == 0
    assert read_manifest("memory://balanced", NAME) == read_manifest(str(tmp_path), NAME)
    other = (*words, "--seed", "5")
    assert balance(run, classifiers, "memory://balanced", *other) == 1
    assert balance(run, classifiers, "memory://balanced", *other, "--force-overwrite") == 0
    assert read_manifest("memory://balanced", NAME) != read_manifest(str(tmp_path), NAME)


def test_a_class_that_stays_short_is_said_with_the_way_out(
    run, classifiers, tmp_path, monkeypatch, capsys
):
    see_right(monkeypatch, 0.2)
    words = ("--to", "22", "--classes", "few", "--filters", "label", "--most", "1")
    assert balance(run, classifiers, tmp_path, *words) == 0
    out = capsys.readouterr().out
    about = json.loads((tmp_path / NAME / "balance.json").read_text())
    rows = {row["class"]: row for row in about["classes"]}
    assert [name for name, row in rows.items() if row["lacked"]] == ["class_0002"]
    row = rows["class_0002"]
    assert (row["made"], row["accepted"], row["rejected"]) == (20, 10, {"label": 10})
    said = "class_0002: 10 of 20 after 20 images, 50% rejected by label; its images show other"
    assert f"short: {said}" in out
    assert said in (tmp_path / NAME / "balance.html").read_text()


def test_a_run_of_one_call_is_balanced_by_one_call_and_the_advice_knows_its_strengths(
    tmp_path, tail_root, classifiers, monkeypatch, capsys
):
    loss = LossConfig(name="ddpm", tcfg=True, omega_max=2.0)
    run = make_run(tmp_path / "runs", tail_root, dataset="tail", row="small", loss=loss)
    config = json.loads(Path(run, "config.json").read_text())
    config["eval"]["guidance_mode"] = "tcfg"
    Path(run, "config.json").write_text(json.dumps(config))
    see_right(monkeypatch, 0.2)
    words = ("--to", "22", "--classes", "few", "--filters", "label", "--most", "1")
    assert balance(run, classifiers, tmp_path, *words, "--dry-run") == 0
    assert "20 images of 3 calls, " in capsys.readouterr().out, "not 6"
    assert balance(run, classifiers, tmp_path, *words) == 0
    out = capsys.readouterr().out
    assert "guided   by one call a step (guidance_mode tcfg)" in out
    assert "a larger --guidance for it (by one call up to 2, more with --guidance-m" in out
    records = [s["json"] for s in samples_of(tmp_path / NAME).values() if "json" in s]
    assert {json.loads(record)["guidance_mode"] for record in records} == {"tcfg"}
    assert balance(run, classifiers, tmp_path / "more", *words, "--guidance", "3") == 1
    assert "(tcfg) knows strengths up to 2" in capsys.readouterr().err


def test_a_dry_run_says_counts_calls_time_and_bytes_and_makes_nothing(
    run, classifiers, tmp_path, capsys
):
    assert balance(run, classifiers, tmp_path / "out", "--to", "5", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "few      1 classes of 2 to 2 real images lack 3" in out
    assert "at least 3 images of 6 calls, " in out and "at most 30 images" in out
    assert " MB" in out and not Path(run, "samples").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "1"), r"to \(1\): no class lacks an image, the largest has 24"),
        (("--classes", "x"), "classes: x is no class of this network"),
        (("--data.root", "/nowhere"), "data.root: .*/nowhere.* holds no data set tail"),
        (("--force", "--keep", "0.5", "--to", "4"), "the filters left none of .* by label"),
        (("--classifiers", "/none"), "classifiers: .*/none, which does not exist.*classify"),
    ],
)
def test_what_does_not_fit_is_named(run, classifiers, tmp_path, capsys, words, message):
    assert balance(run, classifiers, tmp_path / "out", *words) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out" / NAME).exists()


def test_no_classifier_and_one_of_other_classes_are_said(run, tmp_path, capsys):
    assert balance(run, (), tmp_path) == 1, "none lies beside the shards"
    assert "or train one on the real images" in capsys.readouterr().err.lower()
    assert balance(run, ("--classifiers", save_random(tmp_path, 4)), tmp_path) == 1
    assert "knows 4 classes and the data set has 3" in capsys.readouterr().err
    small = save_random(tmp_path, 3, image_size=4)
    assert balance(run, ("--classifiers", small), tmp_path) == 1
    assert "is for images (3, 4) (channels, side), those of tail" in capsys.readouterr().err


def test_a_disk_without_room_is_said_before_the_work(
    run, classifiers, tmp_path, monkeypatch, capsys
):
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: full)
    assert balance(run, classifiers, tmp_path) == 1
    assert "Free space there, or give another --out" in capsys.readouterr().err
