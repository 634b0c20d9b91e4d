import json
from dataclasses import replace

import pytest

from cbdm_scale import preflight, train
from cbdm_scale.config.preset_file import (
    PresetFile,
    preset_text,
    read_preset_file,
)
from cbdm_scale.config.presets import preset
from cbdm_scale.config.schema import is_runtime
from cbdm_scale.sampling.options import usual_sampler
from cbdm_scale.train import main, parse
from tune import search_tau


def write(tmp_path, content):
    path = tmp_path / "best.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_file_of_options_is_a_row_of_its_own(tmp_path):
    made = PresetFile(
        dataset="digits_lt",
        preset="cbdm",
        options={"loss.tau": 0.31, "eval.guidance": [2.0, 1.0], "train.lr": 1e-3},
    )
    path = write(tmp_path, preset_text(made))
    assert read_preset_file(path) == made
    config = parse(["--config", path, "--loss.gamma", "0.5"]).config
    row = preset("digits_lt", "cbdm")
    assert (config.loss.tau, config.loss.gamma, config.eval.guidance) == (0.31, 0.5, (2.0, 1.0))
    changed = {k for k, v in config.flat().items() if v != row.flat()[k]}
    assert changed == {"loss.tau", "loss.gamma", "eval.guidance"}


def test_yaml_says_the_same_with_options_in_each_other(tmp_path):
    path = tmp_path / "best.yaml"
    path.write_text(
        "dataset: digits-lt\npreset: cbdm\noptions:\n  loss: {tau: 0.31}\n"
        "  train.lr: 1e-3  # PyYAML alone reads text\n  eval.guidance: [2, 1.0]\n"
    )
    config = parse(["--config", str(path)]).config
    assert (config.loss.tau, config.train.lr, config.eval.guidance) == (0.31, 1e-3, (2, 1.0))
    for text, words in (
        ("a: [", "it is no YAML"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: &a {b: 1}\nc: {d: *a, e: *a}", "it has an alias"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"config \({path}\).*{words}"):
            parse(["--config", str(path)])


def test_a_file_that_changes_nothing_names_the_same_run(tmp_path):
    path = write(tmp_path, preset_text(PresetFile(dataset="digits_lt", preset="ddpm")))
    assert parse(["--config", path]).config.run_name == preset("digits_lt", "ddpm").run_name


BASE = {"dataset": "digits_lt", "preset": "cbdm"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "it is no JSON"),
        ([], "it takes an object"),
        ({"preset": "cbdm"}, "not whole: .* 'dataset'"),
        (BASE | {"code": "import os"}, "code is no option"),
        (BASE | {"options": []}, "options takes an object"),
        (BASE | {"options": {"loss.tua": 1}}, "loss.tua is no option of a run. Did you mean"),
        (BASE | {"options": {"loss.tau": "1"}}, "loss.tau takes a number, got '1'"),
        (BASE | {"options": {"loss.tau": True}}, "loss.tau takes a number, got 'True'"),
        (BASE | {"options": {"data.flip": 1}}, "data.flip takes true or false, got '1'"),
        (BASE | {"options": {"loss.tau": -1}}, "loss.tau must be at least 0, got -1"),
        (
            BASE | {"options": {"eval.guidance": [True]}},
            "eval.guidance takes a number, got 'True'",
        ),
        (
            BASE | {"options": {"eval.guidance": ["much"]}},
            r"eval.guidance \(much\) is no strength",
        ),
        (BASE | {"options": {"track.uri": "http://x"}}, "track.uri is of the machine"),
        (BASE | {"options": {"cluster.storage": "/"}}, "cluster.storage is of the machine"),
        (
            BASE | {"options": {"eval.extractor_weights": "w"}},
            "eval.extractor_weights is of the machine",
        ),
        (BASE | {"options": {"dataset": "cub200"}}, "belongs beside options"),
        (BASE | {"options": {"process": "emd"}}, "process .*ddpm or edm"),
        (BASE | {"preset": "cbmd"}, r"preset \(cbmd\) is no preset of digits_lt"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, content, words):
    with pytest.raises(ValueError, match=words):
        parse(["--config", write(tmp_path, content)])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config \(.*none.json\) cannot be read"):
        parse([f"--config={tmp_path}/none.json"])


def test_a_file_is_for_one_data_set(tmp_path):
    path = write(tmp_path, BASE)
    assert parse(["--config", path, "--dataset", "digits-lt"]).config.dataset == "digits_lt"
    with pytest.raises(ValueError, match="is for dataset digits_lt, not for cifar10_lt"):
        parse(["--config", path, "--dataset", "cifar10_lt"])


@pytest.mark.parametrize("option", ["data.root", "name", "cluster.workers", "eval.extractor"])
def test_what_a_file_may_not_hold_is_runtime(option):
    assert is_runtime(option)


def test_a_file_may_name_its_backbone(tmp_path):
    options = {"backbone": "dit", "loss.tau": 0.5}
    path = write(tmp_path, preset_text(PresetFile(**BASE, options=options)))
    config = parse(["--config", path]).config
    assert (config.backbone, config.loss.tau) == ("dit", 0.5)
    with pytest.raises(ValueError, match="is for backbone dit, not for unet"):
        parse(["--config", path, "--backbone", "unet"])


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
    config = parse(["--config", path]).config
    assert (config.process, config.sample) == (options["process"], sampler)


def test_a_sampler_that_comes_with_a_process_is_told_and_a_chosen_one_is_not(tmp_path):
    options = {"process": "edm"}
    path = write(tmp_path, BASE | {"options": options})
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps(BASE | {"options": options | {"sample.name": "heun"}}))
    for argv in (["--config", path], ["--process", "edm"]):
        [note] = parse(argv).notes
        assert note.startswith(
            "sample.name heun, 18 steps: the process is edm, the preset cbdm is"
        )
    for argv in (
        ["--config", str(chosen)],
        ["--config", path, "--sample.name", "heun"],
        ["--preset", "edm"],
        ["--preset", "cbdm"],
    ):
        assert parse(argv).notes == []


def test_the_train_command_tells_of_the_sampler(tmp_path, grey_root, capsys):
    path = write(
        tmp_path, {"dataset": "cifar10_lt", "preset": "small", "options": {"process": "edm"}}
    )
    words = ["--cluster.storage", str(tmp_path), "--data.root", grey_root, "--dry-run"]
    assert main(["--config", path, *words]) == 0
    assert "sample.name heun, 18 steps: the process is edm" in capsys.readouterr().out


def test_an_error_says_which_of_its_values_come_from_the_file(tmp_path, capsys):
    """Who typed none of them would look for them on the line."""
    options = {"train.batch_size": 64, "loss.tau": 0.2}
    content = {"dataset": "digits_lt", "preset": "cbdm", "options": options}
    path = write(tmp_path, content)
    where = ["--data.root", str(tmp_path / "none"), "--cluster.workers", "6"]
    for command in (train, preflight, search_tau):
        assert command.main(["--config", path, *where]) == 1
        told = capsys.readouterr().err
        assert "train.batch_size (64)" in told and "loss.tau" not in told
        assert told.endswith(f"Here train.batch_size comes from config ({path}).\n"), told
    assert train.main(["--config", path, *where, "--train.batch-size", "64"]) == 1
    assert path not in capsys.readouterr().err, "it was typed"
