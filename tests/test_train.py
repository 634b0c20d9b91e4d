"""The train command up to where it would start Ray."""

import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cbdm_scale.config.presets import preset, preset_for
from cbdm_scale.config.run_options import resolve
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.models.options import BACKBONES, backbone_config
from cbdm_scale.runs.estimate import estimate_time
from cbdm_scale.runs.launch import describe
from cbdm_scale.sampling.options import usual_sampler
from cbdm_scale.train import main, parse, print_outcome
from data_prep.options import Options
from data_prep.prepare import prepare

# ----------------------------------------------------------------------------
# The command line as a configuration.


def test_without_options_it_is_the_digits():
    assert parse([]).config == preset("digits_lt", "cbdm") and not parse([]).typed


def test_values_are_overridden_by_their_dotted_names():
    parsed = parse(
        [
            *("--dataset", "cifar100_lt", "--loss.tau", "0.5", "--model.multipliers", "1", "2"),
            *("--cluster.workers", "4", "--eval.guidance", "0.5", "1.5", "--data.no-flip"),
            *("--train.ema-ramp", "0.05", "--dry-run"),
        ]
    )
    base = preset("cifar100_lt")
    assert parsed.typed["dry_run"]
    assert parsed.config == replace(
        base,
        loss=replace(base.loss, tau=0.5),
        model=replace(base.model, multipliers=(1, 2)),
        cluster=replace(base.cluster, workers=4),
        eval=replace(base.eval, guidance=(0.5, 1.5)),
        data=replace(base.data, flip=False),
        train=replace(base.train, ema_ramp=0.05),
    )


@pytest.mark.parametrize("word", ["--train.batch-size", "--train.batch_size"])
def test_options_take_dashes_and_underscores(word):
    assert parse([word, "96"]).config.train.batch_size == 96


@pytest.mark.parametrize("words", [["--dataset", "cifar10-lt"], ["--dataset=cifar10_lt"]])
def test_data_set_names_take_dashes_and_underscores(words):
    assert parse(words).config == preset("cifar10_lt")


def test_the_preset_decides_the_defaults_wherever_it_stands():
    config = parse(["--loss.tau", "2", "--preset", "ddpm", "--dataset", "cifar10"]).config
    assert config.loss.name == "ddpm" and config.loss.tau == 2
    assert config.train.batch_size == 64


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_backbone_decides_what_options_the_model_has(capsys, backbone):
    config = parse(["--model.dropout", "0.3", "--backbone", backbone]).config
    row = preset("digits_lt", backbone=backbone)
    assert config == replace(row, model=replace(row.model, dropout=0.3))
    assert type(config.model) is type(backbone_config(backbone))
    with pytest.raises(SystemExit):
        parse([f"--backbone={backbone}", "--help-all"])
    said = capsys.readouterr().out
    for field in fields(config.model):
        assert f"--model.{field.name.replace('_', '-')}" in said
    assert ("--model.patch" in said) == hasattr(config.model, "patch")


def test_a_preset_of_the_backbone_keeps_its_network():
    assert parse(["--backbone", "unet"]).config == preset("digits_lt")


def test_the_process_decides_the_sampler_wherever_it_stands():
    config = parse(
        ["--sample.guidance-to", "0.9", "--process", "edm", "--edm.p-mean=-1"]
    ).config
    assert config.process == "edm" and config.edm.p_mean == -1
    assert config.sample == replace(usual_sampler("edm"), guidance_to=0.9)
    words = ["--preset", "edm", "--process=ddpm"]
    assert parse(words).config.sample == usual_sampler("ddpm")
    same = parse(["--preset", "ddpm", "--process", "ddpm"]).config
    assert same == preset("digits_lt", "ddpm"), "its own sampler has 25 steps"


def test_paths_become_absolute(monkeypatch, tmp_path):
    """A job's working directory vanishes, and workers have their own."""
    monkeypatch.chdir(tmp_path)
    words = ["--data.root", "shards", "--cluster.storage", "runs"]
    config = resolve(parse(words).config)
    assert config.data.root == str(tmp_path / "shards")
    assert config.cluster.storage == str(tmp_path / "runs")
    config = resolve(parse(["--data.root", "s3://bucket/shards"]).config)
    assert config.data.root == "s3://bucket/shards"


# ----------------------------------------------------------------------------
# What users can do wrong.


def failure(capsys, *words):
    """The text on stderr of a command that ends with status 1."""
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return error


@pytest.mark.parametrize(
    "words, parts",
    [
        (
            ["--dataset", "mnist"],
            ["dataset (mnist) is none of", "folder --source DIR"],
        ),
        (["--dataset", "imagenet_lt"], ["prepare imagenet-lt --source"]),
        (["--dataset", "imagenet-lt"], ["prepare imagenet-lt --source"]),
        (["--process", "vp"], ["process must be ddpm or edm, got 'vp'"]),
        (
            ["--process", "edm", "--sample.name", "dpm"],
            ["(dpm) is no sampler of the process edm"],
        ),
        (["--preset", "big"], ["preset (big)", "cbdm, ddpm"]),
        (["--train.batch-size", "7"], ["train.batch_size (7)", "Try --train.batch-size 6"]),
        (["--cluster.workers", "5"], ["batch_size (48)", "(5)", "--train.batch-size 45"]),
        (["--sample.num-steps", "5000"], ["sample.num_steps (5000)", "1000"]),
        (["--name", "a/b"], ["name (a/b)"]),
        (["--backbone", "gan"], ["backbone (gan) is not known", "unet, "]),
        (
            ["--backbone", "dit", "--model.num-blocks=2"],
            ["model.num_blocks is no option of backbone dit, which has size", "unet"],
        ),
        (["--model.patch", "2"], ["model.patch is no option of backbone unet", "dit"]),
        (
            ["--backbone", "dit", "--model.patch", "3", "--dry-run"],
            ["model.patch (3)", "image size (8)", "--model.patch 2"],
        ),
    ],
)
def test_wrong_values_name_option_value_and_way_out(capsys, words, parts):
    error = failure(capsys, *words)
    assert all(part in error for part in parts)


@pytest.mark.parametrize(
    "words, part",
    [
        (["--loss.tau", "-1"], "loss.tau"),
        (["--loss.name", "gan"], "gan"),
        (["--train.lr", "fast"], "--train.lr"),
        (["--loss.tua", "1"], "--loss.tau"),
    ],
)
def test_what_cannot_be_parsed_names_the_option(capsys, words, part):
    try:
        status = main(words)
    except SystemExit as end:  # of a word that is no option
        status = end.code
    assert status
    out = capsys.readouterr()
    assert part in out.err + out.out


def test_a_data_set_that_is_not_there_names_its_command(capsys, tmp_path):
    error = failure(capsys, "--dataset", "cifar10-lt", "--data.root", str(tmp_path))
    assert f"data.root ({tmp_path})" in error
    assert f"prepare cifar10-lt --source DIR --out {tmp_path}" in error


@pytest.fixture(scope="module")
def own_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    options = Options(
        out=str(root), name="my-shapes", counts="9,5,2", resolution=16, classifier=False
    )
    prepare("synthetic", options, log=lambda line: None)
    return str(root)


def test_a_data_set_of_ones_own_is_trained_by_its_name(capsys, own_root):
    words = ["--dataset", "my-shapes", "--data.root", own_root, "--eval.extractor", "none"]
    assert main([*words, "--preset", "small", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "dataset = my_shapes" in said and "model.multipliers = [1, 2, 2]" in said
    assert "\ntraining images: 16\n" in said
    config = parse([*words, "--model.channels", "64"]).config
    assert config == replace(
        preset_for("my_shapes", "cbdm", 16),
        data=replace(config.data, root=own_root),
        eval=replace(config.eval, extractor="none"),
        model=replace(config.model, channels=64),
    )
    assert "cbdm, ddpm, small" in failure(capsys, *words, "--preset", "big")


def test_a_damaged_data_set_of_ones_own_says_so(capsys, own_root, tmp_path):
    shutil.copytree(own_root, tmp_path, dirs_exist_ok=True)
    (tmp_path / "my_shapes/dataset.json").write_text("{")
    error = failure(capsys, "--dataset", "my_shapes", "--data.root", str(tmp_path))
    assert "dataset.json is cut short" in error
    command = f"folder --source DIR --name my_shapes --out {tmp_path} --force-overwrite"
    assert command in error


# ----------------------------------------------------------------------------
# What follows from a configuration.


def test_a_dry_run_prints_every_option_and_the_numbers_and_starts_nothing(
    capsys, grey_root, tmp_path
):
    storage = tmp_path / "runs"
    words = ["--dataset", "cifar10_lt", "--preset", "small", "--cluster.storage", str(storage)]
    assert main([*words, "--data.root", grey_root, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    config = resolve(parse([*words, "--data.root", grey_root]).config)
    manifest = read_manifest(grey_root, "cifar10_lt")
    numbers = [*describe(config, manifest), "run megabytes at most"]
    numbers += estimate_time(config, manifest)
    options = [f"{option} = {value}" for option, value in config.flat().items()]
    assert lines[: len(options)] == options
    blank, refused, *rest = lines[len(options) :]
    assert blank == "", "and it has no classifier"
    assert refused.startswith("warning: training is refused: eval.extractor classifier needs ")
    assert [line.partition(":")[0] for line in rest] == numbers
    assert not storage.exists()


def test_a_dry_run_of_digits_that_are_not_there_leaves_nothing(capsys, tmp_path):
    words = ["--data.root", str(tmp_path / "shards"), "--cluster.storage", str(tmp_path)]
    assert main([*words, "--dry-run"]) == 0
    assert "training images: 428" in capsys.readouterr().out.splitlines()
    assert list(tmp_path.iterdir()) == []


def test_numbers_follow_from_configuration_and_data(grey_root):
    config = replace(preset("cifar10_lt"), name="mine")
    numbers = describe(config, read_manifest(grey_root, "cifar10_lt"))
    assert numbers["run"].endswith("/mine")
    assert numbers["training images"] == 40 and numbers["classes"] == 10
    assert numbers["steps"] == 300_000
    assert numbers["steps per epoch"] == pytest.approx(40 / 48)
    assert numbers["images per worker and step"] == 48 // config.cluster.workers
    assert 35e6 < numbers["parameters"] < 36e6
    assert numbers["checkpoint megabytes"] == pytest.approx(numbers["parameters"] * 16e-6, 1e-3)


def test_terms_that_see_the_batch_say_how_many_images_see_each_other(grey_root):
    plain = replace(preset("cifar10_lt", "t2h"), name="mine")
    loss, train = replace(plain.loss, coral=0.5), replace(plain.train, micro_batch=24)
    for config, words, at_once in (
        (plain, "t2h", 64 // plain.cluster.ranks),
        (replace(plain, loss=loss, train=train), "t2h and coral", 24),
    ):
        numbers = describe(config, read_manifest(grey_root, "cifar10_lt"))
        assert numbers[f"images that {words} see at once"] == at_once
    plain = preset("cifar10_lt", "two_mask")
    assert not any(
        "see at once" in n for n in describe(plain, read_manifest(grey_root, "cifar10_lt"))
    )


def test_help_names_the_options(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "cbdm_scale.train", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    for option in ("--dataset", "--loss.tau", "--dry-run", "--train.total-images"):
        assert option in found.stdout
    assert found.stderr == ""


def test_a_best_checkpoint_that_could_not_be_told_is_refused_at_once(digits_root, capsys):
    words = ["--data.root", digits_root, "--dry-run", "--eval.best-by", "fid_few"]
    assert main([*words, "--eval.extractor", "none"]) == 1
    assert "Try --eval.extractor classifier, or --eval.best-by fid." in capsys.readouterr().err
    assert main(words) == 0


def test_preflight_makes_no_data(tmp_path, capsys):
    from cbdm_scale.preflight import main as preflight

    assert preflight(["--data.root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"data.root ({tmp_path}) has no digits_lt yet" in said
    assert "prepare digits-lt" in said
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("extractor", "then"), [("none", "sample"), ("inception", "evaluate")])
def test_the_next_command_needs_no_extractor_that_the_run_did_without(
    extractor, then, tmp_path, capsys
):
    config = preset("digits_lt")
    config = replace(
        config,
        name="run",
        cluster=replace(config.cluster, storage=str(tmp_path)),
        eval=replace(config.eval, extractor=extractor),
    )
    outcome = {
        "progress": {"num_seen": 48, "skipped_steps": 0, "substitutions": [0]},
        "uri": f"sqlite:///{tmp_path}/none.db",
    }
    outcome |= {"how": "finished", "scores": {}, "remarks": [], "warning": "", "unsent": 0}
    print_outcome(config, outcome)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next ") and last.endswith(f" {then} --run {tmp_path}/run")
