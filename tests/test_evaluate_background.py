"""What the evaluate command finds around it: another run, MLflow, inputs that do not fit."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_tools import HERE, QUICK, evaluate, found_in, home_of
from test_third_party import CONFIGS, random_net, save, to_paper_names
from tracking_tools import begin, history, make_database

from cbdm_scale.data.manifest import parse_manifest
from cbdm_scale.evaluate import COMMAND, main, parse
from cbdm_scale.evaluation.options import EvaluateOptions
from cbdm_scale.evaluation.store import training_home, write_evaluation
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.client import make_client

# ----------------------------------------------------------------------------
# Another run beside it.


def test_against_shows_the_newest_evaluation_of_the_other_run(
    evaluated_copy, evaluated, random_classifier
):
    words = ("--guidance", "0", "2", "--against", evaluated)
    assert evaluate(evaluated_copy, random_classifier, *words, *HERE) == 0
    found = home_of(evaluated_copy).read_json("report.json")
    assert found["against"] == f"noise/{found_in(evaluated).id}"


def test_another_run_without_an_evaluation_is_said_with_the_command(
    evaluated_copy, evaluated, random_classifier, capsys
):
    words = ("--guidance", "0", "2", "--num-images", "20", "--against", evaluated)
    assert evaluate(evaluated_copy, random_classifier, *words, *HERE) == 1
    error = capsys.readouterr().err
    assert (
        f"against ({evaluated}) has no evaluation with extractor {random_classifier}" in error
    )
    command = (
        f"--run {evaluated} --num-images 20 --guidance 0 2 --extractor {random_classifier}"
    )
    assert f"{COMMAND.prog} {command}" in error


def test_a_run_on_another_data_set_is_not_compared_with(
    evaluated_copy, evaluated, random_classifier, capsys
):
    config = Path(evaluated_copy, "config.json")
    about = json.loads(config.read_text())
    about["image"]["fingerprint"] = "0123456789abcdef"
    config.write_text(json.dumps(about))
    assert evaluate(evaluated, random_classifier, "--against", evaluated_copy, *HERE) == 1
    error = capsys.readouterr().err
    assert f"against ({evaluated_copy}) learnt from digits_lt (0123456789abcdef)" in error


# ----------------------------------------------------------------------------
# MLflow.


def test_numbers_and_report_reach_the_runs_mlflow_and_wait_while_it_is_away(
    evaluated_copy, random_classifier, capsys
):
    uri = make_database(Path(evaluated_copy).parent)
    run_id = begin(uri, Storage(evaluated_copy))
    words = ("--guidance", "0", "2", *HERE)
    away = ("--track.uri", "http://127.0.0.1:9")
    assert evaluate(evaluated_copy, random_classifier, *words, *away) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"waiting  track.uri .http://127.0.0.1:9. does not answer.* The same command", out
    )
    assert home_of(evaluated_copy).exists("report.html")
    for _ in range(2):  # the second time it is there
        assert evaluate(evaluated_copy, random_classifier, *words) == 0
        assert "waiting" not in capsys.readouterr().out
    found = found_in(evaluated_copy)
    numbers = found.metrics(load_pretrained(evaluated_copy).config.eval)
    extractor = re.sub(r"[^\w.-]+", "_", random_classifier)
    at = f"eval/{extractor}/50_images/guidance_2"
    assert numbers[f"{at}/fid"] == found.sets[1].fid.value
    assert numbers[f"{at}/kid_few"] == found.sets[1].table.pooled[3].kid.value
    for name, value in numbers.items():
        assert history(uri, run_id, name) == [(48, value)], name
    client = make_client(uri)
    files = {file.path for file in client.list_artifacts(run_id, f"evaluation/{found.id}")}
    names = {path.rpartition("/")[2] for path in files}
    assert {"metrics.json", "report.html", "classes.csv"} <= names


def test_what_training_has_logged_is_not_logged_twice(evaluated_copy, random_classifier):
    """Both evaluate the last checkpoint; a chart has its FID once."""
    uri, run = make_database(Path(evaluated_copy).parent), Storage(evaluated_copy)
    run_id, found = begin(uri, run), found_in(evaluated_copy)
    write_evaluation(training_home(run, 48), replace(found, sets=found.sets[1:]))
    assert evaluate(evaluated_copy, random_classifier, "--guidance", "0", "2", *HERE) == 0
    numbers = found.metrics(load_pretrained(evaluated_copy).config.eval)
    logged = {name: history(uri, run_id, name) for name in numbers if name.endswith("/fid")}
    assert [len(points) for points in logged.values()] == [1, 0], "guidance 0 alone is new"


# ----------------------------------------------------------------------------
# The paper's own code.


def test_a_checkpoint_of_the_papers_code_needs_the_name_of_its_data_set(
    tmp_path, digits_root, capsys
):
    net = random_net(CONFIGS[0].values[0], image_channels=1)
    weights = to_paper_names(net)
    path = str(save(tmp_path / "ckpt_3.pt", weights, fixed_x_T=torch.zeros(4, 1, 8, 8)))
    assert main(["--run", path, *QUICK]) == 1
    error = capsys.readouterr().err
    assert "does not say what it learnt from" in error and "--dataset NAME" in error
    words = ["--run", path, "--dataset", "digits-lt", "--data.root", digits_root]
    assert main([*words, *QUICK]) == 1
    error = capsys.readouterr().err
    assert f"dataset digits_lt has 10 classes, the network {len(net.label.weight) - 1}" in error


# ----------------------------------------------------------------------------
# What does not fit.


def tampered(evaluated_copy: str, tmp_path: Path, digits_root: str, **changes) -> str:
    """A data root whose dataset.json is changed, and the run that learnt from it."""
    root = tmp_path / "changed"
    shutil.copytree(digits_root, root)
    path = root / "digits_lt" / "dataset.json"
    manifest = json.loads(path.read_text())
    for key in changes["without"]:
        del manifest["counts"][key]
    path.write_text(json.dumps(manifest))
    config = Path(evaluated_copy, "config.json")
    about = json.loads(config.read_text())
    about["image"]["fingerprint"] = parse_manifest(path.read_bytes()).fingerprint
    config.write_text(json.dumps(about))
    return str(root)


def test_a_data_set_without_eval_split_is_said(
    evaluated_copy, tmp_path, digits_root, random_classifier, capsys
):
    root = tampered(evaluated_copy, tmp_path, digits_root, without=["eval"])
    assert evaluate(evaluated_copy, random_classifier, "--data.root", root, *HERE) == 1
    assert "has no eval split to compare with, only train" in capsys.readouterr().err


def test_samples_of_another_size_are_said(evaluated, random_classifier, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", arr_0=np.zeros((9, 32, 32, 3), np.uint8))
    assert (
        evaluate(evaluated, random_classifier, "--samples", str(tmp_path / "a.npz"), *QUICK)
        == 1
    )
    error = capsys.readouterr().err
    assert (
        "are 3 x 32 x 32 (channels, height, width), the images of data set digits_lt" in error
    )


def test_labels_that_the_data_set_does_not_have_are_said(
    evaluated, random_classifier, tmp_path, capsys
):
    pixels = np.zeros((9, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "a.npz", arr_0=pixels, arr_1=np.full(9, 10))
    assert (
        evaluate(evaluated, random_classifier, "--samples", str(tmp_path / "a.npz"), *QUICK)
        == 1
    )
    assert "has label 10, the data set digits_lt has 10 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--guidance", "0", "much"), r"guidance \(much\) is no strength"),
        (("--guidance", "-1"), "guidance must be at least 0, got -1"),
        (("--guidance", "nan"), r"guidance takes .*number, got 'nan'"),
        (("--guidance", "many=0.5,few=1"), r"guidance \(many=0.5,few=1\) must name the groups"),
        (("--num-images", "1"), "num_images must be at least 2, got 1"),
        (("--chunk-size", "0"), "chunk_size must be at least 1, got 0"),
        (("--extractor", "vgg"), "error: extractor 'vgg' is not known"),
        (("--extractor", "none"), "extractor none gives no numbers"),
        (("--dataset", "cifar10"), r"dataset \(cifar10\): the run learnt from digits_lt"),
        (("--data.root", "/nowhere"), r"data.root: .*/nowhere.* holds no data set digits_lt"),
        (("--samples", "/nowhere"), "samples: /nowhere is not there"),
        (
            ("--samples", "a.npz", "--guidance", "0", "1"),
            "names 2 strengths, and samples .a.npz",
        ),
        (("--against", "/nowhere"), r"against: run \(/nowhere\) does not exist"),
        (("--run", "/nowhere"), r"run \(/nowhere\) does not exist"),
        (("--sample.num-steps", "2000"), r"sample.num_steps \(2000\) must be between 1 and"),
    ],
)
def test_what_does_not_fit_is_named(evaluated, random_classifier, capsys, words, message):
    before = Storage(f"{evaluated}/evaluation").list()
    try:
        status = evaluate(evaluated, random_classifier, *HERE, *words)
    except SystemExit as stopped:  # of a word that is no option
        status = stopped.code
    assert status
    assert re.search(message, capsys.readouterr().err)
    assert Storage(f"{evaluated}/evaluation").list() == before


def test_without_a_run_the_way_out_is_said(capsys):
    assert main([*HERE]) == 1
    assert "run is missing" in capsys.readouterr().err


def test_the_runs_own_configuration_decides_the_defaults(evaluated):
    options, pretrained, _ = parse(["--run", evaluated, "--seed", "5"])
    assert pretrained and options.sample == pretrained.config.sample
    assert (options.num_images, options.omegas, options.chunk_size) == (30, (1.0,), 8)
    assert options.seed == 5 and options.extractor == ("classifier",)
    assert EvaluateOptions(guidance=(1, 0, 0.5, 1)).omegas == (0.0, 0.5, 1.0)
    several = EvaluateOptions(guidance=("few=1,many=0.5", 2, "many=.5,few=1.0"))
    assert several.omegas == (2.0, "many=0.5,few=1")


def test_a_damaged_result_is_named_with_the_way_out(evaluated_copy, random_classifier, capsys):
    home_of(evaluated_copy).write_bytes("metrics.json", b"{")
    assert evaluate(evaluated_copy, random_classifier, "--guidance", "0", "2", *HERE) == 1
    assert "metrics.json is damaged" in capsys.readouterr().err
