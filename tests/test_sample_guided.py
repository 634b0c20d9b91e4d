"""Guided sampling by the command, in two predictions a step and in one."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sampling_tools import make_run, only_set

from cbdm_scale.config.schema import from_dict
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.models.build import build
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.serve import generate_from_checkpoint
from cbdm_scale.sample import main, parse
from cbdm_scale.sampling.guidance import trained
from cbdm_scale.sampling.sampler import Sampler
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.distributed import World


@pytest.fixture
def run(tmp_path, digits_root):
    """A run with the omega-conditioned layer, as --preset tcfg makes them."""
    return make_run(tmp_path / "runs", digits_root, row="tcfg")


def images(run, out, *words):
    words = ("--run", run, "--cluster.workers", "0", "--format", "npz", "--out", out, *words)
    assert main([str(word) for word in words]) == 0
    found = only_set(str(out))
    with np.load(found.local_path("images-30.npz"), allow_pickle=False) as file:
        return file["arr_0"], found


def checkpoint(run):
    return max(Path(run, "checkpoints").iterdir())


def network(run):
    config = from_dict(json.loads(Path(run, "config.json").read_text()))
    net = build(
        NetworkSpec(model=config.model, channels=1, image_size=8, num_classes=10, omega_max=1.0)
    )
    net.load_state_dict(load_file(checkpoint(run) / "ema.safetensors"))
    return net.eval(), config


def expected(net, config, omega, mode="cfg"):
    """What evaluation generates: 30 images, 8 at a time."""
    asked = replace(config.eval, extractor="none", seed=0, chunk_size=8, guidance_mode=mode)
    config = replace(config, eval=asked)
    manifest = read_manifest(config.data.root, "digits_lt")
    schedule = LinearSchedule(config.diffusion)
    evaluator = Evaluator(config, manifest, schedule, World(), Storage("unused"))
    made = [x for _, _, x in evaluator.generate(net, torch.arange(30), omega, 0, 1)]
    return torch.cat(made).permute(0, 2, 3, 1).numpy()


def test_one_call_a_step_makes_what_the_network_answers_to_the_strength(run, tmp_path):
    net, config = network(run)
    one, found = images(run, tmp_path / "1", "--guidance", 0.8, "--guidance-mode", "tcfg")
    told = trained(net, 0.8, 10)
    assert np.array_equal(one, expected(told, config, omega=0.0))
    assert np.array_equal(one, expected(net, config, 0.8, "tcfg"))
    two, other = images(run, tmp_path / "2", "--guidance", 0.8, "--guidance-mode", "cfg")
    assert np.array_equal(two, expected(net, config, 0.8))
    assert not np.array_equal(one, two)
    assert "-tcfg0.8-" in found.url and "-omega0.8-" in other.url


@pytest.mark.parametrize("mode", ["cfg", "tcfg"])
def test_each_group_gets_its_strength_in_sample_training_and_serve(run, tmp_path, mode):
    """What sets of one strength have of its classes; the groups are 3, 4 and 3 classes."""
    words = "--guidance", "few=1,many=0.25,medium=0", "--guidance-mode", mode
    made, found = images(run, tmp_path / "1", *words)
    net, config = network(run)
    omega = "many=0.25,medium=0,few=1"
    assert np.array_equal(made, expected(net, config, omega, mode))
    for number, rows in ((0.25, [0, 1, 2]), (0.0, [3, 4, 5, 6]), (1.0, [7, 8, 9])):
        whole, _ = images(run, tmp_path / str(number), "--guidance", number, *words[2:])
        difference = made[rows].astype(int) - whole[rows].astype(int)
        assert np.abs(difference).max() <= 1, "a batch of another size rounds otherwise"
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(checkpoint(run) / "ema.safetensors", folder)
    changed = json.loads(Path(run, "config.json").read_text())
    changed["eval"] |= {"guidance": [omega], "guidance_mode": mode}
    (folder / "config.json").write_text(json.dumps(changed))
    served = generate_from_checkpoint(str(folder), [i % 10 for i in range(30)])
    assert np.array_equal(served, made)
    changed["data"]["root"] = str(tmp_path / "gone")
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"own strength \(many=0.25.* counts .*Give a number"):
        generate_from_checkpoint(str(folder), [0])
    assert len(generate_from_checkpoint(str(folder), [0], omega=0.5)) == 1


def test_strengths_by_count_make_the_images_of_each_class_at_its_own(run, tmp_path):
    """max(0, 1 - 0.4 log10 n) of a class with n training images, 174 down to 2."""
    made, _ = images(run, tmp_path, "--guidance", "count=1:-0.4", "--guidance-mode", "cfg")
    net, config = network(run)
    counts = read_manifest(config.data.root, "digits_lt").counts["train"]
    own = torch.tensor([max(0.0, 1 - 0.4 * math.log10(n)) for n in counts])
    assert 0 < own.min() < 0.15 and own.max() > 0.85
    sampler = Sampler(
        shape=(1, 8, 8),
        null_label=10,
        process=LinearSchedule(config.diffusion),
        config=config.sample,
        seed=0,
    )
    for numbers in torch.arange(30).split(8):
        x = to_uint8(sampler.generate(net, numbers, numbers % 10, own[numbers % 10]))
        assert np.array_equal(made[numbers], x.permute(0, 2, 3, 1).numpy())


def test_strength_zero_is_the_same_in_both_modes(run, tmp_path):
    one, _ = images(run, tmp_path / "1", "--guidance", 0, "--guidance-mode", "tcfg")
    two, _ = images(run, tmp_path / "2", "--guidance", 0, "--guidance-mode", "cfg")
    assert np.array_equal(one, two)


def test_a_run_says_its_mode_to_sample_and_to_serve(run):
    options, *_ = parse(["--run", run])
    assert (options.guidance, options.guidance_mode) == ((1.0,), "tcfg")
    folder = checkpoint(run)
    (folder / "config.json").write_bytes(Path(run, "config.json").read_bytes())
    net, config = network(run)
    served = generate_from_checkpoint(str(folder), [i % 10 for i in range(30)])
    assert np.array_equal(served, expected(net, config, 1.0, "tcfg"))


def test_training_looks_at_the_network_in_the_mode_of_the_run(run):
    net, config = network(run)
    config = replace(config, eval=replace(config.eval, extractor="none"))
    manifest = read_manifest(config.data.root, "digits_lt")
    schedule = LinearSchedule(config.diffusion)
    evaluator = Evaluator(config, manifest, schedule, World(), Storage(run))
    loaded = evaluator.load(48)
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    [made] = evaluator.generate(loaded, torch.arange(8), 1.0, 0, 1)
    assert np.array_equal(
        made[2].permute(0, 2, 3, 1).numpy(), expected(net, config, 1.0, "tcfg")[:8]
    )


@pytest.mark.parametrize(
    ("row", "words", "message"),
    [
        ("cbdm", ("--guidance", "0.8"), r"guidance_mode \(tcfg\) needs a network with.*: cfg"),
        (
            "tcfg",
            ("--guidance", "1.6"),
            r"strengths up to 1 .*, got 1.6. Try 1, or cfg",
        ),
    ],
)
def test_what_the_network_did_not_learn_is_refused(
    tmp_path, digits_root, capsys, row, words, message
):
    run = make_run(tmp_path / "runs", digits_root, row=row)
    words = ("--run", run, "--cluster.workers", "0", "--guidance-mode", "tcfg", *words)
    assert main(words) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not Path(run, "samples").exists()
