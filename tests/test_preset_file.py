import json
from dataclasses import replace

import pytest

from cbdm_scale.config.preset_file import (
    PresetFile,
    preset_text,
    read_preset_file,
    sampler_note,
    starting_point,
)
from cbdm_scale.config.presets import preset
from cbdm_scale.config.schema import is_runtime
from cbdm_scale.runs.command_line import parse
from cbdm_scale.sampling.options import usual_sampler
from cbdm_scale.train import main


def write(tmp_path, content):
    path = tmp_path / "best.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_file_of_options_is_a_row_of_its_own(tmp_path):
    made = PresetFile(
        dataset="digits_lt",
        preset="cbdm",
        options={"loss.tau": 0.31, "eval.omegas": [2.0, 1.0], "train.lr": 1e-3},
    )
    path = write(tmp_path, preset_text(made))
    assert read_preset_file(path) == made
    config, _ = parse(["--preset", path, "--loss.gamma", "0.5"])
    row = preset("digits_lt", "cbdm")
    assert (config.loss.tau, config.loss.gamma, config.eval.omegas) == (0.31, 0.5, (2.0, 1.0))
    changed = {k for k, v in config.flat().items() if v != row.flat()[k]}
    assert changed == {"preset", "loss.tau", "loss.gamma", "eval.omegas"}


def test_a_file_that_changes_nothing_names_the_same_run(tmp_path):
    path = write(tmp_path, preset_text(PresetFile(dataset="digits_lt", preset="ddpm")))
    assert parse(["--preset", path])[0].run_name == preset("digits_lt", "ddpm").run_name


BASE = {"dataset": "digits_lt", "preset": "cbdm"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON"),
        ([], "must hold one object"),
        ({"preset": "cbdm"}, "lacks dataset"),
        (BASE | {"code": "import os"}, "holds code; known are dataset"),
        (BASE | {"options": []}, "options must be a dict"),
        (BASE | {"options": {"loss.tua": 1}}, "loss.tua is no option of a run. Did you mean"),
        (BASE | {"options": {"loss.tau": "1"}}, r"loss.tau takes a value like 1.0 \(float\)"),
        (BASE | {"options": {"loss.tau": True}}, "loss.tau takes a value like 1.0"),
        (BASE | {"options": {"data.flip": 1}}, "data.flip takes a value like False"),
        (BASE | {"options": {"loss.tau": -1}}, "loss.tau must be finite and not negative"),
        (BASE | {"options": {"eval.omegas": ["1"]}}, "eval.omegas takes a value like"),
        (BASE | {"options": {"track.uri": "http://x"}}, "track.uri is of the machine"),
        (BASE | {"options": {"cluster.storage": "/"}}, "cluster.storage is of the machine"),
        (BASE | {"options": {"eval.weights": "w"}}, "eval.weights is of the machine"),
        (BASE | {"options": {"dataset": "cub200"}}, "belongs beside options"),
        (BASE | {"options": {"process": "emd"}}, r"process \(emd\) must be ddpm or edm"),
        (BASE | {"preset": "cbmd"}, r"preset \(cbmd\) is no row of digits_lt"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, content, words):
    with pytest.raises(ValueError, match=words):
        starting_point(["--preset", write(tmp_path, content)])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"preset \(.*none.json\) cannot be read"):
        starting_point([f"--preset={tmp_path}/none.json"])


def test_a_file_is_for_one_data_set(tmp_path):
    path = write(tmp_path, BASE)
    assert starting_point(["--preset", path, "--dataset", "digits-lt"]).dataset == "digits_lt"
    with pytest.raises(ValueError, match="is for digits_lt, not for dataset cifar10_lt"):
        starting_point(["--preset", path, "--dataset", "cifar10_lt"])


@pytest.mark.parametrize("option", ["data.root", "name", "cluster.workers", "eval.extractor"])
def test_what_a_file_may_not_hold_is_runtime(option):
    assert is_runtime(option)


def test_a_file_may_name_its_backbone(tmp_path):
    options = {"backbone": "dit", "loss.tau": 0.5}
    path = write(tmp_path, preset_text(PresetFile(**BASE, options=options)))
    config, _ = parse(["--preset", path])
    assert (config.backbone, config.loss.tau) == ("dit", 0.5)
    with pytest.raises(ValueError, match="is for backbone dit, not for unet"):
        starting_point(["--preset", path, "--backbone", "unet"])


@pytest.mark.parametrize(
    ("row", "options", "sampler"),
    [
        ("cbdm", {"process": "edm"}, usual_sampler("edm")),
        (
            "cbdm",
            {"sample.guidance_to": 0.9, "process": "edm"},
            replace(usual_sampler("edm"), guidance_to=0.9),
        ),
        (
            "cbdm",
            {"process": "edm", "sample.name": "heun"},
            replace(preset("digits_lt", "cbdm").sample, name="heun"),
        ),
        ("cbdm_edm", {"process": "ddpm"}, usual_sampler("ddpm")),
        ("cbdm", {"process": "ddpm"}, preset("digits_lt", "cbdm").sample),
    ],
)
def test_a_process_in_a_file_brings_its_usual_sampler_unless_the_file_names_one(
    tmp_path, row, options, sampler
):
    path = write(tmp_path, BASE | {"preset": row, "options": options})
    config, _ = parse(["--preset", path])
    assert (config.process, config.sample) == (options["process"], sampler)


def test_a_sampler_that_comes_with_a_process_is_told_and_a_chosen_one_is_not(tmp_path):
    options = {"process": "edm"}
    path = write(tmp_path, BASE | {"options": options})
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps(BASE | {"options": options | {"sample.name": "heun"}}))
    for argv in (["--preset", path], ["--process", "edm"]):
        [told] = sampler_note(argv, parse(argv)[0])
        assert told.startswith(
            "sample.name heun, 18 steps: the process is edm, the row cbdm is"
        )
    for argv in (
        ["--preset", str(chosen)],
        ["--preset", path, "--sample.name", "heun"],
        ["--preset", "edm"],
        ["--preset", "cbdm"],
    ):
        assert sampler_note(argv, parse(argv)[0]) == []


def test_the_train_command_tells_of_the_sampler(tmp_path, grey_root, capsys):
    path = write(
        tmp_path, {"dataset": "cifar10_lt", "preset": "small", "options": {"process": "edm"}}
    )
    words = ["--cluster.storage", str(tmp_path), "--data.root", grey_root, "--dry-run"]
    assert main(["--preset", path, *words]) == 0
    assert "sample.name heun, 18 steps: the process is edm" in capsys.readouterr().out
