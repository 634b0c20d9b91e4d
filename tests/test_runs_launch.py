"""The folder that a run claims before it starts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ray_tools import record_launch

from cbdm_scale.config.presets import preset
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.runs import launch as launching
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.storage.folder import Storage
from cbdm_scale.train import parse


@pytest.mark.parametrize(
    ("words", "on_gpus", "seconds"),
    [
        ((), False, 60),
        ((), True, 600),
        (("--train.compile",), False, 600),
        (("--train.compile", "--cluster.timeout-s", "900"), True, 900),
    ],
)
def test_workers_that_compile_or_set_up_gpus_are_waited_for(
    words, on_gpus, seconds, grey_root, tmp_path, monkeypatch
):
    asked = record_launch(monkeypatch, launching)
    config = parse(["--dataset", "cifar10_lt", "--preset", "small", *words]).config
    manifest = read_manifest(grey_root, "cifar10_lt")
    launching._train(config, manifest, Storage(str(tmp_path)), "", {}, on_gpus)
    assert asked == [seconds, seconds], "of the process group, and of a rank's own groups"


@pytest.fixture
def claim(grey_root, tmp_path):
    manifest = read_manifest(grey_root, "cifar10_lt")

    def with_options(*words):
        storage = ["--cluster.storage", str(tmp_path / "runs"), "--name", "mine"]
        words = ["--dataset", "cifar10_lt", "--preset", "small", *storage, *words]
        return open_run_dir(parse(words).config, manifest)

    return with_options


def test_a_claimed_run_holds_its_configuration(claim):
    run = claim()
    config = run.read_json("config.json")
    assert config["loss"]["tau"] == 1 and config["name"] == "mine"


def test_the_same_run_goes_on_with_another_runtime(claim):
    claim()
    run = claim("--cluster.workers", "4", "--train.total-images", "960000")
    assert run.read_json("config.json")["cluster"]["workers"] == 4


def test_a_run_with_another_configuration_names_the_options_that_differ(claim):
    run = claim()
    before = run.read_bytes("config.json")
    with pytest.raises(ValueError) as refused:
        claim("--loss.tau", "2", "--seed", "3", "--cluster.workers", "1")
    text = str(refused.value)
    assert "name (mine)" in text and "Choose another --name" in text
    assert "loss.tau (1.0 there, 2.0 here)" in text and "seed (0 there, 3 here)" in text
    assert "workers" not in text
    assert run.read_bytes("config.json") == before


def test_a_run_with_another_backbone_is_another_run(claim):
    claim()
    with pytest.raises(ValueError, match=r"backbone \(unet there, dit here\)"):
        claim("--backbone", "dit")


def test_a_run_of_any_backbone_goes_on(claim):
    config = json.loads(claim("--backbone", "dit").read_bytes("config.json"))
    assert "channels" not in config["model"]
    claim("--backbone", "dit", "--cluster.workers", "1")


def test_a_run_on_other_data_is_another_run(claim, grey_root):
    run = claim()
    manifest = replace(read_manifest(grey_root, "cifar10_lt"), shards_sha256="0" * 64)
    config = parse(
        [
            *("--dataset", "cifar10_lt", "--preset", "small", "--name", "mine"),
            *("--cluster.storage", str(Path(run.url).parent)),
        ]
    ).config
    with pytest.raises(ValueError, match="image.fingerprint"):
        open_run_dir(config, manifest)


def test_an_option_that_a_run_does_not_know_yet_had_its_default(claim):
    run = claim()
    older = run.read_json("config.json")
    del older["train"]["lr_schedule"]
    run.write_json("config.json", older)
    assert claim().read_json("config.json")["train"]["lr_schedule"] == "constant"
    run.write_json("config.json", older)
    with pytest.raises(ValueError, match=r"train.lr_schedule \(constant there, linear here\)"):
        claim("--train.lr-schedule", "linear")


def test_a_damaged_config_is_named(claim):
    run = claim()
    run.write_bytes("config.json", b'{"dataset": ')
    with pytest.raises(ValueError, match=r"config.json is damaged.*another --name"):
        claim()


def test_storage_that_is_no_folder_is_refused(grey_root, tmp_path):
    (tmp_path / "file").write_text("")
    config = preset("cifar10_lt")
    config = replace(
        config, cluster=replace(config.cluster, storage=str(tmp_path / "file" / "runs"))
    )
    with pytest.raises(ValueError, match=r"cluster.storage \(.*\) is not writable.*--cluster"):
        open_run_dir(config, read_manifest(grey_root, "cifar10_lt"))


def test_config_json_is_what_mlflow_and_serving_read(claim):
    """Image size and number of classes stand beside the options."""
    image = json.loads(claim().read_bytes("config.json"))["image"]
    assert image["channels"] == 3 and image["size"] == 32 and image["num_classes"] == 10
    assert len(image["fingerprint"]) >= 8
    assert isinstance(claim(), Storage)
