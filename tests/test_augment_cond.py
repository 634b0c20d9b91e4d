"""Augmented batches on their way from the shards to the network, and the numbers beside them.

Shapes: n = images, N = batch, M = images that the regulariser sees.
"""

import shutil
from dataclasses import replace

import pytest
import torch
from gloo_tools import tiny_config
from loader_tools import BATCH, load, open_images, write_digits
from network_tools import num_parameters
from process_tools import sent
from safetensors.torch import load_file
from training_tools import TinyNet, make_batch, make_inputs, on_device

from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.options import DataConfig
from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.build import build
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.serve import generate_from_checkpoint
from cbdm_scale.runs.launch import describe, open_run_dir
from cbdm_scale.runs.worker import Run
from cbdm_scale.tracking.tracker import Tracker
from cbdm_scale.training.distributed import World
from cbdm_scale.training.gradients import backward

SMALL = UNetConfig(channels=16, multipliers=(1, 2), num_blocks=1, groups=8, dropout=0.0)
CPU = torch.device("cpu")
SCHEDULE = LinearSchedule(ScheduleConfig())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("augment")
    write_digits(root)
    return root


@pytest.mark.parametrize("name", ["ada", "diffaug"])
def test_batches_are_augmented_alike_for_every_number_of_workers(made, name):
    alone = load(open_images(made, augment=name), 3)
    restarted = load(open_images(made, augment=name), 1, start=2 * BATCH)[0]
    assert torch.equal(restarted.x0, alone[2].x0)
    for rank in range(3):
        parts = load(open_images(made, augment=name), 3, rank=rank, world_size=3)
        for part, whole in zip(parts, alone, strict=True):
            assert torch.equal(part.x0, whole.x0[rank::3])
            if name == "ada":
                assert torch.equal(part.augment, whole.augment[rank::3])
            else:
                assert part.augment is None
    there = sent(open_images(made, augment=name))
    assert torch.equal(there[alone[0].sample_ids].x0, alone[0].x0)
    assert not torch.equal(load(open_images(made), 1)[0].x0, alone[0].x0)


def test_only_ada_is_told_to_the_network():
    names = ("none", "ada", "diffaug")
    told = [DataConfig(augment=name).conditions_on_augmentation for name in names]
    assert told == [False, True, False]


def heard(name, augment, n=20, **options):
    """The draws of a batch, and what a network was given as ``augment`` in its only call."""
    loss, drawer = build_loss(
        LossConfig(name=name, **options), SCHEDULE, torch.tensor([5, 3, 2]), 1, n
    )
    draws = drawer(torch.arange(n), (1, 8, 8), CPU, augment)
    calls = []

    def net(x, level, y, omega=None, augment=None):
        calls.append(augment)
        return x

    loss(net, torch.zeros(n, 1, 8, 8), torch.arange(n) % 3, draws)
    (told,) = calls
    return draws, told


def test_both_predictions_of_cbdm_are_given_the_same_numbers():
    numbers = torch.randn(20, 9)
    draws, told = heard("cbdm", numbers)
    assert torch.equal(told, torch.cat([numbers, numbers]))
    draws, told = heard("cbdm", numbers, reg_share=0.4)
    assert len(draws.term_draws["rows"]) == 8
    assert torch.equal(told, torch.cat([numbers, numbers[draws.term_draws["rows"]]]))


def test_ddpm_is_given_the_numbers_of_dropped_labels_too():
    numbers = torch.randn(20, 9)
    draws, told = heard("ddpm", numbers)
    assert draws.dropped.any() and torch.equal(told, numbers)


@pytest.mark.parametrize("name", ["ddpm", "cbdm"])
def test_without_numbers_nothing_is_given(name):
    draws, told = heard(name, None)
    assert draws.augment is None and told is None


def test_every_micro_batch_brings_its_own_numbers():
    inputs, told = make_inputs(), []

    def loss(net, x0, y, draws):
        told.append(draws.augment)
        return inputs.loss(net, x0, y, replace(draws, augment=None))

    batch = replace(make_batch(torch.arange(8)), augment=torch.randn(8, 9))
    parts = on_device(batch, inputs.draw, micro_batch=3)
    list(backward(TinyNet(), loss, parts, World(), precision="fp32"))
    assert [len(part) for part in told] == [3, 3, 2]
    assert all(torch.equal(part, batch.augment[i::3]) for i, part in enumerate(told))


def test_a_fresh_augment_layer_changes_nothing_and_learns():
    """Its weights come last and are zero: the others are those of a network without it."""

    def fresh(augment):
        torch.manual_seed(0)
        spec = NetworkSpec(model=SMALL, channels=3, image_size=8, num_classes=3)
        return build(replace(spec, augment=augment))

    without, with_layer = fresh(False), fresh(True)
    extra = with_layer.state_dict().keys() - without.state_dict().keys()
    assert extra == {"augment.weight"}
    assert num_parameters(with_layer) - num_parameters(without) == 9 * 4 * SMALL.channels
    for name, tensor in without.state_dict().items():
        assert torch.equal(with_layer.state_dict()[name], tensor), name
    x, t, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 3, 500, 999]), torch.arange(4)
    out = with_layer(x, t, y, augment=torch.ones(4, 9))
    assert torch.equal(out, without(x, t, y))
    out.square().mean().backward()
    assert with_layer.augment.weight.grad.any()


def test_a_run_with_ada_learns_from_the_numbers_and_samples_without(digits_root, tmp_path):
    plain = tiny_config(digits_root, str(tmp_path), "ada", steps=4, dropout=0.0)
    data = replace(plain.data, augment="ada", augment_p=0.5, flip=True)
    config = replace(plain, data=data)
    manifest = read_manifest(digits_root, "digits_lt")
    extra = describe(config, manifest)["parameters"] - describe(plain, manifest)["parameters"]
    assert extra == 9 * 4 * config.model.channels

    folder = open_run_dir(config, manifest)
    run = Run(config, World(), folder, Tracker(), lambda path, at: None, lambda _: None)
    assert run.go()["how"] == "finished"
    weights = folder.local_path("checkpoints/000000000048")  # 4 steps of 12 images
    assert load_file(weights / "model.safetensors")["augment.weight"].any(0).all()
    shutil.copy(folder.local_path("config.json"), weights)
    assert generate_from_checkpoint(str(weights), [0, 3]).shape == (2, 8, 8, 1)
