"""The commands for the user's own images, from files to shards."""

import pytest
from own_tools import make_images, own_options
from shard_tools import contents
from test_data_prep_cifar import CIFAR10, make_folder

from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.shards import ShardReader
from data_prep.__main__ import main


def run(*words):
    return main([*map(str, words), "--no-classifier", "--samples-per-shard", "5"])


def test_a_folder_with_a_long_tail_becomes_shards_with_its_images(tmp_path, capsys):
    make_images(tmp_path / "My Shapes", ("a", "b", "ü"), each=10)
    words = ["folder", "--source", tmp_path / "My Shapes", "--out", tmp_path / "out"]
    assert run(*words, "--resolution", 8, "--long-tail", 0.2) == 0
    said = capsys.readouterr().out
    row = "--preset small --eval.extractor none"
    assert f"--dataset my_shapes_lt {row} --data.root {tmp_path / 'out'}" in said
    manifest = read_manifest(str(tmp_path / "out"), "my_shapes_lt")
    assert manifest.counts == {"train": (10, 4, 2), "eval": (10, 10, 10)}
    assert manifest.class_names == ("a", "b", "ü") and manifest.image_size == 8
    index = open_index(str(tmp_path / "out"), "my_shapes_lt", "train")
    reader = ShardReader(str(tmp_path / "out"), "my_shapes_lt", index)
    for row in range(16):
        pixel = reader.load(row)[:, 0, 0]
        assert pixel[0] == 50 * index.labels[row]
        assert index.key(row) in (f"{'abu'[index.labels[row]]}-{pixel[1] // 10}",)


def test_one_broken_file_counts_as_one_image(tmp_path, capsys):
    """Although it is an image of train and of eval."""
    root = make_images(tmp_path / "in", each=3)
    for name in ("a/1.png", "b/0.png"):
        (root / name).write_bytes((root / name).read_bytes()[:45])
    words = ["folder", "--source", root, "--name", "mine", "--resolution", 4]
    assert run(*words, "--out", tmp_path, "--allow-missing", 1) == 1
    said = capsys.readouterr().err
    assert "2 images of mine cannot be read, and 1 may be" in said
    assert "or raise --allow-missing by 1." in said
    assert len((tmp_path / "mine.bad.txt").read_text().splitlines()) == 4, "one of each split"
    assert run(*words, "--out", tmp_path, "--allow-missing", 2) == 0
    assert "2 images cannot be read and are left out" in capsys.readouterr().out


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(tmp_path):
    make_images(tmp_path / "in", each=10)
    found = []
    for out, seed in ((tmp_path / "1", 0), (tmp_path / "2", 0), (tmp_path / "3", 1)):
        words = ["folder", "--source", tmp_path / "in", "--out", out, "--seed", seed]
        assert run(*words, "--long-tail", 0.5, "--profile", "step", "--resolution", 4) == 0
        found.append(contents(out))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("dataset", ["webdataset", "synthetic"])
def test_other_sources_become_shards(tmp_path, dataset):
    options = own_options(dataset, tmp_path)
    words = ["--source", options.source] if options.source else ["--counts", options.counts]
    assert run(dataset, *words, "--name", "mine", "--out", tmp_path, "--resolution", 8) == 0
    manifest = read_manifest(str(tmp_path), "mine")
    assert manifest.num_images("train") == (5 if dataset == "synthetic" else 2)


def test_copies_of_tars_far_away_are_gone_when_the_shards_are_there(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    tar = own_options("webdataset", tmp_path).source
    fsspec.filesystem("memory").put(tar, "/own/0.tar")
    words = ["--source", "memory://own/0.tar", "--name", "mine", "--out", tmp_path]
    assert run("webdataset", *words) == 0
    assert read_manifest(str(tmp_path), "mine").num_images("train") == 2
    assert not list((tmp_path / "cache").iterdir())


def test_cifar_takes_the_step_profile(tmp_path):
    make_folder(tmp_path / "in", CIFAR10)
    words = ["--source", tmp_path / "in", "--allow-changed", "--out", tmp_path]
    assert run("cifar10-lt", *words, "--imbalance", 0.25, "--profile", "step") == 0
    manifest = read_manifest(str(tmp_path), "cifar10_lt")
    largest = max(manifest.counts["eval"])
    assert manifest.counts["train"] == (*[largest] * 5, *[largest // 4] * 5)
    assert "step long tail 0.25" in manifest.source


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["folder"], "--source is missing: the folder with one folder a class"),
        (["folder", "--source", "in"], "--long-tail"),
        (["folder", "--source", "in", "--profile", "step"], "--profile (step) is the profile"),
        (["folder", "--source", "cifar10"], "published data set"),
        (["folder", "--source", "in", "--classes", "3"], "--classes (3) means nothing for fol"),
        (
            ["folder", "--source", "in", "--allow-missing", "-1"],
            "--allow-missing must be at least 0, got -1",
        ),
        (
            ["folder", "--source", "in", "--eval-source", "gone"],
            "--eval-source (gone) is neither",
        ),
        (["folder", "--source", "in", "--resolution", "0"], "--resolution must be from 1 to"),
        (["webdataset", "--source", "a.tar"], "--name is missing: what to call it"),
        (["webdataset", "--source", "a.tar", "--name", "x"], "1 tars are not there"),
        (
            ["webdataset", "--source", "xyz://y.tar", "--name", "x"],
            "source (xyz://y.tar) cannot be opened",
        ),
        (["synthetic"], "--counts is missing: imagenet_lt"),
        (["synthetic", "--counts", "5", "--source", "in"], "--source (in) means nothing"),
        (
            ["cifar10", "--source", "in", "--long-tail", "0.1"],
            "--long-tail (0.1) means nothing",
        ),
    ],
)
def test_wrong_values_name_option_value_and_way_out(
    tmp_path, capsys, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "in")
    make_images(tmp_path / "cifar10")
    if message == "--long-tail":
        words, message = [*words, "--long-tail", "0.1"], "--long-tail (0.1) leaves class 1"
    assert run(*words, "--out", tmp_path / "out") == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.tar"))
