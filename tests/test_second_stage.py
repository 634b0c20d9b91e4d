"""A second stage of TCFG as a run: its defaults, what it refuses, and its bits."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gloo_tools import Job, checkpoint, launch, read_losses, tiny_config
from safetensors.torch import load_file
from sampling_tools import make_run
from test_backbones import shaken
from test_finetune import prepared

from cbdm_scale.config.run_options import resolve
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.runs.teacher import open_teacher
from cbdm_scale.runs.worker import build_state
from cbdm_scale.storage.folder import Storage
from cbdm_scale.train import main
from cbdm_scale.training.checkpoint import save_initial
from cbdm_scale.training.distributed import World
from cbdm_scale.training.options import TrainConfig


@pytest.fixture
def run(tmp_path, digits_root):
    return make_run(tmp_path / "runs", digits_root, row="ddpm")


@pytest.fixture
def words(run, tmp_path):
    """The command of a second stage, and where it goes."""
    storage = str(tmp_path / "stages")
    return [*("--init-from", run, "--loss.tcfg", "--cluster.storage", storage)]


def changed(run, **options):
    """The run with another configuration of its loss."""
    file = Path(run, "config.json")
    about = json.loads(file.read_text())
    about["loss"] |= options
    file.write_text(json.dumps(about))


# ----------------------------------------------------------------------------
# Defaults.


def test_a_trained_network_and_tcfg_are_a_second_stage_on_its_own_options(words, run):
    config, manifest, folder, lines = prepared(words)
    there = load_pretrained(run).config
    loss = LossConfig(name="ddpm", tcfg=True, tcfg_target="teacher", omega_max=2.0)
    assert config.loss == loss and config.loss.distils
    assert config.data == replace(there.data, resample_power=0.5)
    assert there.model.dropout == 0.1
    assert config.model == replace(there.model, dropout=0.0)
    assert config.sample == there.sample
    assert config.train == replace(
        there.train,
        total_images=6,  # 0.12 of the 48 that the teacher has seen
        batch_size=24,
        lr=0.5 * there.train.lr,
        lr_schedule="linear",
        warmup_images=0,
        ema_ramp=0.05,
        log_every=1,
    )
    assert config.eval == replace(there.eval, guidance_mode="tcfg")
    assert config.run_name.startswith("digits_lt-tcfg_distilled-")
    [said] = [line for line in lines if line.startswith("stage    second")]
    assert "omega 0 to 2" in said
    assert "evaluated with one call a step (eval.guidance_mode tcfg)" in "\n".join(lines)


def test_what_is_typed_or_named_stays(words, digits_root):
    typed = ["--loss.omega-max", "0.6", "--train.lr", "1e-4", "--eval.guidance-mode", "cfg"]
    config, *_, lines = prepared([*words, *typed, "--train.trainable", "embeddings"])
    assert (config.loss.omega_max, config.train.lr) == (0.6, 1e-4)
    assert config.eval.guidance == (0.6,), "the run's own 1 is more than is learnt"
    assert config.train.trainable == "embeddings" and config.train.batch_size == 24
    assert "evaluated with two calls a step" in "\n".join(lines)
    named = ["--preset", "cbdm", "--data.root", digits_root, "--loss.tcfg-target", "auto"]
    config, *_ = prepared([*words, *named])
    assert config.preset == "cbdm" and config.loss.distils and not config.loss.regularises
    assert config.train.lr_schedule == "linear"
    longer, *_ = prepared(
        [*words, "--train.total-images", "4800", "--data.resample-power", "0"]
    )
    assert (longer.train.total_images, longer.train.warmup_images) == (4800, 192)
    assert longer.data.resample_power == 0


def test_the_config_of_the_run_is_no_choice_and_that_of_a_stage_is(words, run, digits_root):
    """--config RUN/config.json beside --init-from RUN gives what --init-from alone gives."""
    words += ["--data.root", digits_root]
    plain, *_, folder, _ = prepared(words)
    again, *_ = prepared([*words, "--config", f"{run}/config.json"])
    assert (again.loss, again.train.lr) == (plain.loss, plain.train.lr)
    config = Path(folder.local_path("config.json"))
    about = json.loads(config.read_text())
    about["train"]["lr"] = 0.007
    kept = config.parents[1] / "kept.json"
    kept.write_text(json.dumps(about))
    of_stage, *_ = prepared([*words, "--config", str(kept), "--name", "other"])
    assert of_stage.train.lr == 0.007 and of_stage.loss.distils


def test_the_printed_equations_are_a_choice_on_a_trained_network_too(words, digits_root):
    config, *_ = prepared([*words, "--data.root", digits_root, "--loss.tcfg-target", "noise"])
    assert not config.loss.distils and config.loss.omega_max == 1.0
    assert config.loss.title == "cbdm_tcfg"


def test_it_costs_one_prediction_and_two_of_the_teacher():
    stage = LossConfig(name="ddpm", tcfg=True, tcfg_target="teacher")
    assert (stage.predictions, stage.teacher_predictions) == (1, 2)
    assert LossConfig(tcfg=True).teacher_predictions == 0


# ----------------------------------------------------------------------------
# What cannot be.


def refuses(words, says):
    with pytest.raises(ValueError, match=says):
        prepared(words)


def test_a_teacher_needs_a_trained_network():
    config = Config(loss=LossConfig(tcfg=True, tcfg_target="teacher"))
    with pytest.raises(ValueError, match=r"tcfg_target \(teacher\) .*init_from is empty. Give"):
        resolve(config)


def test_a_teacher_that_was_never_without_label_is_refused(words, run):
    changed(run, p_uncond=0.0)
    refuses(words, r"init_from .* was trained with loss.p_uncond 0, so it has no prediction")


def test_another_data_set_is_refused(words, run):
    file = Path(run, "config.json")
    file.write_text(file.read_text().replace(load_pretrained(run).fingerprint, "0" * 16))
    refuses(words, r"init_from .* learnt another data set \(digits_lt, fingerprint 0000.*noise")


def test_a_teacher_that_lacks_a_class_is_refused(words, run):
    refuses([*words, "--init-labels", "mean"], r"does not know all classes \(label rows all")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (
            ["--loss.omega-max", "0"],
            r"loss.omega_max \(0.0\) leaves loss.tcfg nothing to learn",
        ),
        (["--loss.p-uncond", "0"], r"loss.p_uncond \(0.0\) leaves loss.tcfg nothing to learn"),
        (
            ["--loss.coral", "0.5"],
            r"loss.coral \(0.5\) cannot be beside loss.tcfg_target \(teac",
        ),
        (
            ["--loss.name", "cbdm"],
            r"loss.name \(cbdm\) cannot be beside loss.tcfg_target \(teac",
        ),
        (
            ["--eval.guidance", "3"],
            r"eval.guidance_mode \(tcfg\) knows strengths up to 2 .*got 3",
        ),
    ],
)
def test_what_a_second_stage_cannot_be_is_told_apart(words, typed, says):
    refuses([*words, *typed], says)


def test_the_layer_alone_cannot_learn_where_there_is_none():
    with pytest.raises(
        ValueError, match=r"train.trainable \(omega\) is the layer .*--loss.tcfg"
    ):
        Config(train=TrainConfig(trainable="omega"))


# ----------------------------------------------------------------------------
# Once it has begun.


def test_its_teacher_is_there_when_the_first_run_is_gone(words, run, digits_root):
    another, *_ = prepared([*words, "--loss.tcfg-target", "noise", "--data.root", digits_root])
    config, manifest, folder, _ = prepared(words)
    average = load_pretrained(run).tensors
    shutil.rmtree(run)
    again, _, there, lines = prepared(words)
    assert again == config and there == folder and "does not exist" in "\n".join(lines)
    state = build_state(config, manifest, torch.device("cpu"))
    found = open_teacher(config, folder, state.net, World(), print)
    for name, tensor in found.state_dict().items():
        assert name not in average or torch.equal(tensor, average[name]), name


def test_a_dry_run_says_all_of_it(words, capsys):
    assert main([*words, "--train.trainable", "omega", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "loss.tcfg_target = teacher" in said and "stage    second" in said
    assert "new      omega.linear_1.weight, omega.linear_2.weight" in said
    assert not Storage(words[-1]).list()


# ----------------------------------------------------------------------------
# Its bits, by real processes that reduce over gloo.

STEPS, BREAK = 8, 3


def stage_job(root, folder, name, ranks, start, begin_with=None, **options):
    """A second stage that starts from the tensors ``start``."""
    trainable = options.pop("trainable", "all")
    config = tiny_config(root, str(folder), name, steps=STEPS, **options)
    config = replace(
        config,
        init_from="/gone",
        init_sha256="0" * 16,
        loss=LossConfig(name="ddpm", tcfg=True, tcfg_target="teacher", omega_max=2.0),
        train=replace(config.train, trainable=trainable),
    )
    save_initial(Storage(str(folder)).child(name), start, {"url": "/gone"})
    return Job(config, ranks, begin_with=begin_with)


@pytest.fixture(scope="module")
def done(digits_root, tmp_path_factory):
    """All runs by name; their teacher has weights of its own."""
    folder = tmp_path_factory.mktemp("runs")
    manifest = read_manifest(digits_root, "digits_lt")
    plain = replace(
        tiny_config(digits_root, "", "teacher", steps=1, dropout=0.0), loss=LossConfig()
    )
    start = shaken(build_state(plain, manifest, torch.device("cpu")).net).state_dict()

    def job(name, ranks, begin_with=None, **options):
        return stage_job(digits_root, folder, name, ranks, start, begin_with, **options)

    jobs = {f"on {r}": job(f"on-{r}", r, dropout=0.0) for r in (1, 2)}
    jobs["on 2 in parts"] = job("parts", 2, dropout=0.0, micro_batch=4)
    for which in ("all", "embeddings"):
        more = {"dropout": 0.1, "save_steps": BREAK, "trainable": which}
        whole = job(f"unbroken-{which}", 2, **more)
        broken = job(f"broken-{which}", 2, checkpoint(whole, BREAK), **more)
        jobs |= {f"unbroken {which}": whole, f"broken {which}": broken}
    assert launch(list(jobs.values()), folder / "meetings") == [0, 0]
    return jobs, start


@pytest.mark.parametrize("name", ["on 2", "on 2 in parts"])
def test_losses_are_the_same_on_two_workers_and_in_micro_batches(done, name):
    jobs, _ = done
    expected, found = read_losses(jobs["on 1"]), read_losses(jobs[name])
    assert len(found) == STEPS and found == pytest.approx(expected, rel=1e-5, abs=0)


@pytest.mark.parametrize("which", ["all", "embeddings"])
def test_a_resumed_second_stage_ends_with_the_bits_of_the_unbroken_one(done, which):
    jobs, _ = done
    for file in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        one, other = (
            (checkpoint(jobs[f"{kind} {which}"], STEPS) / file).read_bytes()
            for kind in ("unbroken", "broken")
        )
        assert one == other, file
    assert len(read_losses(jobs[f"broken {which}"])) == STEPS - BREAK


def test_frozen_weights_stay_in_network_and_average_and_have_no_moments(done):
    jobs, start = done
    folder = checkpoint(jobs["unbroken embeddings"], STEPS)
    moved = set()
    for file in ("model.safetensors", "ema.safetensors"):
        tensors = load_file(folder / file)
        moved |= {n for n, t in start.items() if not torch.equal(t, tensors[n])}
    learning = {n for n in start if n.split(".")[0] in ("time", "label") or ".emb." in n}
    assert moved == learning
    moments = {n.partition(".")[2] for n in load_file(folder / "optimizer.safetensors")}
    assert moments == learning | {"omega.linear_1.weight", "omega.linear_2.weight"}
