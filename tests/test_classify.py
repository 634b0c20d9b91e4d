"""The classify command: options, identity, and one real run on two workers."""

import json
import re
import shlex
import sys
from dataclasses import replace

import numpy as np
import pytest
from extractor_tools import load_extractor
from ray_tools import logged_steps, record_launch, run
from sampling_tools import make_run

from cbdm_scale import classify
from cbdm_scale.classify import (
    ClassifyOptions,
    identity,
    main,
    open_run_dir,
    parse,
    say_outcome,
    with_workers,
)
from cbdm_scale.recognition.sets import find_sets
from cbdm_scale.storage.folder import Storage


def test_the_data_set_decides_whether_images_are_mirrored():
    assert not parse([])[0].data.flip
    assert parse(["--dataset", "cifar100-lt"])[0].data.flip
    assert parse(["--dataset", "my_own"])[0].data.flip
    assert not parse(["--dataset", "cifar10_lt", "--data.no-flip"])[0].data.flip


def test_the_defaults_are_those_of_long_tailed_recognition():
    train = parse(["--dataset", "cifar100_lt"])[0].train
    assert (train.epochs, train.batch_size, train.lr, train.momentum) == (200, 128, 0.1, 0.9)
    assert train.weight_decay == 2e-4 and train.total_images == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds", "1", "1"], "must be different numbers"),
        (["--add-per-class", "some"], "is no number of images"),
        (
            ["--train.batch-size", "64", "--cluster.workers", "3"],
            r"train.batch_size \(64\) must be divisible .* Try --train.batch-size 63",
        ),
        (["--cluster.min-workers", "1"], r"cluster.min_workers \(1\): batch normalisation"),
    ],
)
def test_options_that_make_no_sense_are_named(words, told):
    with pytest.raises(ValueError, match=told):
        parse(words)


def test_errors_are_one_line_and_an_exit_status(tmp_path, capsys):
    missing = ["--dataset", "cifar10_lt", "--data.root", str(tmp_path)]
    assert main(missing) == 1
    assert re.search("Make it: .*prepare cifar10-lt", capsys.readouterr().err)


def test_a_name_is_not_taken_over_by_another_configuration(tmp_path):
    options = ClassifyOptions(name="mine")
    options = replace(options, cluster=replace(options.cluster, storage=str(tmp_path)))
    decided = {"dataset": "digits_lt", "train": {"lr": 0.1}}
    assert open_run_dir(options, decided).url == str(tmp_path / "mine")
    open_run_dir(replace(options, seeds=(7,)), decided)
    with pytest.raises(ValueError, match=r"train.lr \(0.1 there, 0.2 here\)"):
        open_run_dir(options, {"dataset": "digits_lt", "train": {"lr": 0.2}})
    unnamed = replace(options, name="")
    names = {open_run_dir(unnamed, decided | {"added": a}).url for a in ("", "x", "x")}
    assert len(names) == 2 and all("digits_lt-resnet32-" in name for name in names)


def test_what_decides_a_result_is_in_its_identity_and_nothing_else(digits_root):
    sets = find_sets(digits_root, "digits_lt", [], "all")

    def decided(*words):
        return identity(parse(["--train.total-images", "1280", *words])[0], sets)

    plain = decided()
    assert "class_balance" not in plain["train"], "runs of older versions go on"
    for same in (["--seeds", "4"], ["--train.log-every", "7"], ["--train.epochs", "9"]):
        assert decided(*same) == plain, same
    for other in (
        ["--train.lr", "0.2"],
        ["--train.class-balance", "0.9999"],
        ["--train.total-images", "2560"],
        ["--data.flip"],
        ["--cluster.workers", "1"],
    ):
        assert decided(*other) != plain, other


@pytest.mark.parametrize(("device", "seconds"), [("cpu", 60), ("gpu", 600)])
def test_workers_that_set_up_gpus_are_waited_for(
    device, seconds, digits_root, tmp_path, monkeypatch
):
    asked = record_launch(monkeypatch, classify)
    options, _ = parse(["--cluster.device", device])
    sets = find_sets(digits_root, "digits_lt", [], "all")
    classify._train(options, sets, Storage(str(tmp_path)), "")
    assert asked == [seconds, seconds]


def test_little_work_is_done_in_this_process_and_its_result_is_that_of_one_worker(digits_root):
    sets = find_sets(digits_root, "digits_lt", [], "all")
    little, typed = parse(["--train.total-images", "1280"])
    chosen = with_workers(little, sets)
    assert (little.cluster.workers, chosen.cluster.workers) == (2, 0) and list(typed) == [
        "train.total_images"
    ]
    one = parse(["--train.total-images", "1280", "--cluster.workers", "1"])[0]
    assert identity(chosen, sets) == identity(one, sets)
    long = parse(["--train.total-images", "1280000"])[0]
    assert with_workers(long, sets) == long


@pytest.mark.slow
@pytest.mark.ray
def test_two_workers_learn_real_and_generated_images_and_log_it(work, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(50) % 10
    pixels = rng.integers(0, 256, (50, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "made.npz", arr_0=pixels, arr_1=labels)
    words = [
        *(sys.executable, "-m", "cbdm_scale.classify", "--add", str(tmp_path / "made.npz")),
        *("--add-per-class", "4", "--seeds", "0", "1", "--name", "recognition"),
        *("--data.root", str(work / "shards"), "--cluster.storage", str(work / "runs")),
        *("--train.total-images", "256", "--train.batch-size", "64"),
        *("--train.log-every", "128", "--cluster.cpus-per-worker", "0.9"),
        *("--cluster.workers", "2"),
    ]
    told = run(words)
    assert "428 real images and 40 generated ones (4 to 4 a class)" in told
    assert "taken for many" in told and " classify --" in told.partition("next ")[2]
    folder = work / "runs" / "recognition"
    scores = json.loads((folder / "result.json").read_text())["scores"]
    assert scores.keys() == {"all", "many", "medium", "few"}
    extractor = load_extractor(f"classifier:{folder / 'classifier.safetensors'}", str(folder))
    assert extractor.dim == 64

    assert logged_steps(work, "recognition", "seed1/loss") == [128, 256]
    assert logged_steps(work, "recognition", "recognition/recall_few") == [512]
    assert "seed 0: there already" in run(words)


def test_the_next_commands_are_whole_ones_and_name_a_network_of_the_same_images(
    tmp_path, digits_root, capsys
):
    runs = str(tmp_path / "my runs")
    options, typed = parse(["--cluster.storage", runs, "--name", "x", "--seeds", "0", "1"])
    outcome = {
        **{"how": "finished", "images_shown": 1_280, "scores": {}, "taken_for": {}},
        **{"classes_never_predicted": [], "unsent": 0, "why": ""},
    }
    for find in (lambda: "RUN", lambda: make_run(tmp_path / "my runs", digits_root)):
        network = find()
        say_outcome(options, typed, outcome, Storage(runs).child("x"), "", "digits")
        sample, classify = capsys.readouterr().out.partition("next ")[2].splitlines()[:2]
        assert sample.endswith(f" sample --run {shlex.quote(network)} --format npz")
        words = shlex.split(classify.partition(" classify ")[2])
        assert words.pop() == "IMAGES" and words.pop() == "--add"
        again = parse([*words, "--add", str(tmp_path)])[0]
        assert again.cluster.storage == runs and again.train.total_images == 1_280
        assert again.seeds == (0, 1)
