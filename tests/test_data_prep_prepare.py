import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shard_tools import contents, copy_digits, make_digits
from test_data_prep_cifar import CIFAR10, CIFAR100, make_folder
from tracking_tools import make_database

import data_prep.prepare
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.train import main as train
from data_prep.__main__ import main
from data_prep.options import Options
from data_prep.prepare import CLASSIFIER, prepare, prepare_digits, train_command
from data_prep.writing.shards import write_dataset

REPOSITORY = Path(__file__).parents[1]


def quiet(line):
    pass


def test_same_content_is_left_as_it_is(tmp_path):
    copy_digits(tmp_path)
    before = (tmp_path / "digits_lt/dataset.json").stat()
    said = []
    prepare(
        "digits-lt",
        Options(out=str(tmp_path), classifier=False, samples_per_shard=100, workers=0),
        log=said.append,
    )
    assert any("already there with the same content" in line for line in said)
    after = (tmp_path / "digits_lt/dataset.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(tmp_path) == ["digits_lt"]


def test_other_content_needs_force_and_is_refused_before_the_work(tmp_path):
    copy_digits(tmp_path)
    before, said = contents(tmp_path), []
    other = Options(out=str(tmp_path), seed=1, classifier=False, workers=0)
    with pytest.raises(
        ValueError, match=r"other content .*seed 0; now: .*seed 1.*--force-over"
    ):
        prepare("digits-lt", other, log=said.append)
    assert not any("writing" in line for line in said)
    assert contents(tmp_path) == before
    manifest = make_digits(tmp_path, seed=1, force_overwrite=True)
    assert read_manifest(str(tmp_path), "digits_lt") == manifest
    assert contents(tmp_path) != before
    assert os.listdir(tmp_path) == ["digits_lt"]


def test_damaged_data_set_is_told_and_can_be_replaced(tmp_path):
    copy_digits(tmp_path)
    before = contents(tmp_path)
    tar = tmp_path / "digits_lt/eval/000003.tar"
    raw = bytearray(tar.read_bytes())
    raw[5000] ^= 1
    tar.write_bytes(raw)
    with pytest.raises(ValueError, match="is damaged .*--force-overwrite"):
        make_digits(tmp_path)
    make_digits(tmp_path, force_overwrite=True)
    assert contents(tmp_path) == before


def test_unfinished_folder_needs_force(tmp_path):
    copy_digits(tmp_path)
    (tmp_path / "digits_lt/dataset.json").unlink()
    with pytest.raises(ValueError, match="without a dataset.json.*--force-overwrite"):
        make_digits(tmp_path)
    make_digits(tmp_path, force_overwrite=True)
    read_manifest(str(tmp_path), "digits_lt")


def test_folder_of_the_user_is_never_replaced(tmp_path):
    (tmp_path / "digits_lt").mkdir()
    (tmp_path / "digits_lt/thesis.tex").touch()
    with pytest.raises(ValueError, match="not a data set of ours .it holds thesis.tex"):
        make_digits(tmp_path, force_overwrite=True)
    make_folder(tmp_path / "cifar10", CIFAR10)
    options = Options(
        out=str(tmp_path), source=str(tmp_path / "cifar10"), force_overwrite=True, workers=0
    )
    with pytest.raises(ValueError, match="it holds --source"):
        prepare("cifar10", replace(options, allow_changed=True), log=quiet)
    assert (tmp_path / "cifar10/data_batch_1").exists()


def test_interrupted_run_without_a_finished_shard_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_prep.prepare, "write_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_digits(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("same", [True, False])
def test_another_process_may_be_faster(tmp_path, monkeypatch, same):
    def overtaken(source, out, **options):
        manifest = write_dataset(source, out, **options)
        shutil.copytree(out, tmp_path / "digits_lt")
        if not same:
            (tmp_path / "digits_lt/eval/000000.tar").write_bytes(b"")
        return manifest

    monkeypatch.setattr(data_prep.prepare, "write_dataset", overtaken)
    if same:
        make_digits(tmp_path)
        read_manifest(str(tmp_path), "digits_lt")
    else:
        with pytest.raises(ValueError, match="is there already and is damaged"):
            make_digits(tmp_path)
    assert os.listdir(tmp_path) == ["digits_lt"]


def test_a_root_that_is_made_for_the_digits_is_said(tmp_path, monkeypatch, capsys):
    """It may be a slip; and what trains on them is running already."""
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        prepare_digits(str(tmp_path / "shrads"), classifier=False)
    said = capsys.readouterr().out
    assert said.startswith(
        f"data.root ({tmp_path}/shrads) is not there: it is made, and digits"
    )
    assert said.count("is not there") == 1 and "next:" not in said


def test_finished_digits_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    copy_digits(tmp_path)
    (tmp_path / "digits_lt" / CLASSIFIER).write_bytes(b"weights")
    before = contents(tmp_path / "digits_lt")
    inode = (tmp_path / "digits_lt").stat().st_ino
    prepare_digits(str(tmp_path))
    assert contents(tmp_path / "digits_lt") == before
    assert (tmp_path / "digits_lt").stat().st_ino == inode
    prepare_digits("s3://bucket/shards")  # nothing to do for stores: reading names the command


def test_another_draw_of_the_digits_is_trained_on_by_the_printed_command(
    tmp_path, monkeypatch, capsys
):
    """Without a classifier: train made the usual draw then, and refused this one."""
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    place = ["--out", str(tmp_path / "my shards")]
    assert main(["digits-lt", "--seed", "1", "--no-classifier", *place]) == 0
    words = shlex.split(capsys.readouterr().out.rpartition("next: ")[2])
    small = (
        "--cluster.workers 0 --model.channels 16 --train.total-images 48 --train.sample-every 0"
    )
    places = "--cluster.storage", str(tmp_path / "runs"), "--track.uri", make_database(tmp_path)
    assert train([*words[words.index("train") + 1 :], *small.split(), *places]) == 0
    out = capsys.readouterr().out
    assert "finished at 48 images" in out and "mlflow ui" in out


def test_a_missing_classifier_is_fitted_whatever_the_draw_and_to_no_other_images(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    fitted = []
    monkeypatch.setattr(data_prep.prepare, "fit_classifier", lambda *a: fitted.append(a[1].url))
    drawn = make_digits(tmp_path / "drawn", seed=1, imbalance=0.1)
    prepare_digits(str(tmp_path / "drawn"))
    assert fitted == [f"{tmp_path}/drawn/digits_lt"]
    assert read_manifest(str(tmp_path / "drawn"), "digits_lt") == drawn
    words = "synthetic --name digits-lt --classes 2 --counts 4 --resolution 8 --no-classifier"
    assert main([*words.split(), "--out", str(tmp_path / "own")]) == 0
    prepare_digits(str(tmp_path / "own"))
    assert len(fitted) == 1


@pytest.mark.slow
def test_two_processes_may_prepare_digits_at_once(tmp_path):
    environment = os.environ | {"CBDM_SCALE_CACHE": str(tmp_path / ".cache")}
    code = f"from data_prep.prepare import prepare_digits; prepare_digits({str(tmp_path)!r})"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    said = [child.communicate()[0].decode() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(text.count("fitting the feature classifier") for text in said) == [0, 1]
    assert sorted(os.listdir(tmp_path)) == [".cache", "digits_lt"]
    assert read_manifest(str(tmp_path), "digits_lt").num_images("train") == 428
    assert (tmp_path / "digits_lt" / CLASSIFIER).exists()


def test_classifier_is_fitted_once_and_is_no_part_of_the_data_set(tmp_path):
    make_folder(tmp_path / "in", CIFAR10)
    options = Options(
        out=str(tmp_path), source=str(tmp_path / "in"), allow_changed=True, workers=0
    )
    without = prepare("cifar10", replace(options, classifier=False), log=quiet)
    said = []
    assert prepare("cifar10", options, log=said.append) == without
    assert "fitting the feature classifier on 200 images" in said
    before = (tmp_path / "cifar10" / CLASSIFIER).stat().st_mtime_ns
    prepare("cifar10", options, log=said.append)
    assert (tmp_path / "cifar10" / CLASSIFIER).stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["cifar10-lt", "cifar100-lt", "cifar10", "cifar100"])
def test_cifar_commands_write_what_they_say(tmp_path, capsys, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    variant = CIFAR100 if "100" in name else CIFAR10
    make_folder(tmp_path / "in", variant)
    command = [name.replace("-", "_"), "--source", str(tmp_path / "in"), "--allow_changed"]
    command += ["--out", str(tmp_path), "--samples-per-shard=500", "--no_classifier"]
    command += ["--imbalance", "0.1"] if name.endswith("lt") else []
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    manifest = read_manifest(str(tmp_path), name)
    train, full = manifest.num_images("train"), manifest.num_images("eval")
    assert (train < full) == name.endswith("lt")
    assert manifest.num_images("test") == (1000 if variant is CIFAR100 else 40)
    assert said[-4] == f"  images   {train:,} train, {full:,} eval, " + (
        f"{manifest.num_images('test'):,} test; 32x32x3"
    )
    assert said[-1].endswith(
        f"--dataset {manifest.name} --preset small --eval.extractor none --data.root {tmp_path}"
    )


@pytest.mark.parametrize(
    ("name", "images", "gpu", "row"),
    [
        ("mine", 1_188, False, "small"),
        ("mine", 1_188, True, "small"),
        ("mine", 50_000, False, "small"),
        ("mine", 50_000, True, None),
        ("cub200", 5_994, True, None),
        ("cub200", 5_994, False, "small"),
        ("digits_lt", 428, False, None),
    ],
)
def test_the_next_command_is_the_row_for_this_machine_and_so_many_images(
    digits_root, monkeypatch, name, images, gpu, row
):
    """And a shell reads it as it is meant."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    digits = read_manifest(digits_root, "digits_lt")
    manifest = replace(digits, name=name, counts={"train": (images,) + (0,) * 9})
    words = shlex.split(train_command(manifest, "/a b/what?"))
    preset = ["--preset", row] if row else []
    options = ["--dataset", name, *preset, "--data.root", "/a b/what?"]
    assert words[-len(options) :] == options and words[-len(options) - 1] == "train"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cifar10"], "--source is missing: the folder of CIFAR-10"),
        (["cifar10", "--source", "/nowhere"], "--source (/nowhere) is not CIFAR-10"),
        (["cifar10", "--source", "x", "--imbalance", "0.1"], "means nothing for cifar10"),
        (["digits-lt", "--source", "x"], "--source (x) means nothing for digits-lt"),
        (["digits-lt", "--imbalance", "2"], "--imbalance must be above 0 and at most 1, got 2"),
        (["digits-lt", "--samples-per-shard", "0"], "--samples-per-shard must be from 1 to"),
        (["digits-lt", "--seed", "-1"], "--seed must be from 0 to"),
        (["digits-lt", "--out", "nowhere://x"], "(nowhere://x/digits_lt) cannot be opened"),
        (
            ["digits-lt", "--workers", "-1"],
            "--workers must be at least 0, got -1. Leave it out, or try 0: this process alone.",
        ),
        (["digits-lt", "--format", "gif"], "format takes png or webp or jpeg, got 'gif'"),
        (["digits-lt", "--quality", "90"], "--quality (90) means nothing for --format png"),
        (
            ["digits-lt", "--format", "jpeg", "--quality", "0"],
            "--quality must be from 1 to",
        ),
    ],
)
def test_wrong_values_name_option_value_and_way_out(tmp_path, capsys, words, message):
    assert main(["--out", str(tmp_path / "out"), "--no-classifier", *words]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tar"))


def test_out_that_cannot_be_written_is_told(tmp_path, capsys):
    file = tmp_path / "README.md"
    file.touch()
    for out in (file, file / "shards"):
        assert main(["digits-lt", "--out", str(out), "--no-classifier"]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: --out ({out}): {file} is a file. Give a folder")
