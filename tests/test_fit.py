"""The classifier's loop: learning rate, learning, stopping, errors, testing."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from recognition_tools import stripes
from torch import nn

from cbdm_scale.data.loader import load_batches
from cbdm_scale.data.options import DataConfig
from cbdm_scale.data.plan import SamplePlan
from cbdm_scale.models.resnet import new_resnet
from cbdm_scale.recognition.fit import (
    FitConfig,
    average_buffers,
    class_weights,
    count_confusion,
    fit,
    learning_rate,
)
from cbdm_scale.recognition.mixed_images import Augmented, MixedImages
from cbdm_scale.training.distributed import World
from cbdm_scale.training.gradients import RunError

CONFIG = FitConfig(batch_size=16, log_every=160, lr=0.05)
QUIET = {"report": lambda images, loss: None, "stop": lambda: False}


def batches_of(images, config=CONFIG, seed=0):
    augmented = Augmented(MixedImages([images]), SamplePlan([images.count], seed), seed, False)
    return load_batches(
        augmented, DataConfig(), start=0, batch_size=config.batch_size, rank=0, world_size=1
    )


def net_of(seed=0):
    return new_resnet(image_channels=1, image_size=8, num_classes=2, seed=seed)


def test_the_learning_rate_rises_then_falls_at_160_and_180_of_200():
    config = FitConfig(lr=0.1, warmup=0.025)
    by_epoch = {e: learning_rate(config, e / 200) for e in (0, 2.5, 5, 159.9, 160, 180, 199)}
    expected = [0, 0.05, 0.1, 0.1, 1e-3, 1e-5, 1e-5]
    assert list(by_epoch.values()) == pytest.approx(expected)


def test_epochs_count_the_whole_mixture_and_total_images_goes_before():
    assert FitConfig(epochs=2, batch_size=10).num_images(96) == 190
    assert FitConfig(epochs=2, batch_size=10, total_images=44).num_images(96) == 40
    assert FitConfig(epochs=1, batch_size=128).num_images(5) == 128


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "train.batch_size must be at least 1"),
        ({"lr": 0.0}, "train.lr must be above 0"),
        ({"total_images": -1}, "train.total_images must be at least 0, got -1"),
        ({"class_balance": 1.0}, "train.class_balance must be at least 0 and below 1"),
        ({"warmup": 1.0}, "train.warmup must be at least 0 and below 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        FitConfig(**options)


def test_it_learns_says_so_and_is_the_same_again():
    reports, nets = [], []
    for _ in range(2):
        net = net_of()
        hooks = QUIET | {"report": lambda *numbers: reports.append(numbers)}
        batches = batches_of(stripes(64))
        assert fit(net, batches, CONFIG, 480, World(), **hooks)
        batches.close()
        nets.append(net)
    assert [images for images, _ in reports] == [160, 320, 480] * 2
    assert reports[:3] == reports[3:] and reports[2][1] < reports[0][1]
    for a, b in zip(*(net.state_dict().values() for net in nets), strict=True):
        assert torch.equal(a, b)
    table = count_confusion(nets[0], stripes(50, seed=1), 2, World())
    assert table.sum() == 50 and table.sum(dim=1).tolist() == [25, 25]
    assert table.trace() > 45


def test_weights_of_classes_are_those_of_effective_numbers():
    beta, counts = 0.9, torch.tensor([1, 2, 0, 1000])
    # (1 - beta) / (1 - beta^n): 1, 0.1 / 0.19, none, 0.1; their sum is K.
    expected = torch.tensor([1.0, 0.1 / 0.19, 0.0, 0.1])
    found = class_weights(counts, beta)
    torch.testing.assert_close(found, 4 * expected / expected.sum())
    even = class_weights(torch.tensor([5, 50, 500]), 0.0)
    torch.testing.assert_close(even, torch.ones(3))
    nearly_one = class_weights(torch.tensor([10, 20]), 1 - 1e-9)
    torch.testing.assert_close(nearly_one, torch.tensor([4 / 3, 2 / 3]))


def test_a_class_of_no_weight_is_not_learnt():
    net = net_of()
    batches = batches_of(stripes(64))
    only_first = torch.tensor([1.0, 0.0])
    assert fit(net, batches, CONFIG, 480, World(), **QUIET, weights=only_first)
    batches.close()
    table = count_confusion(net, stripes(50, seed=1), 2, World())
    assert table[:, 0].tolist() == [25, 25]


def test_told_to_stop_it_stops():
    batches = batches_of(stripes(8))
    hooks = QUIET | {"stop": lambda: True}
    assert not fit(net_of(), batches, CONFIG, 160, World(), **hooks)
    batches.close()


def test_images_that_cannot_be_read_are_the_error():
    def broken():
        raise OSError("the disk is gone")
        yield

    with pytest.raises(RunError, match="reading the images failed. OSError: the disk is gone"):
        fit(net_of(), broken(), CONFIG, 160, World(), **QUIET)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_way_out():
    config = replace(CONFIG, lr=1e30, warmup=0.0)
    batches = batches_of(stripes(64))
    with pytest.raises(RunError, match="not finite after 160 images. Try a lower --train.lr"):
        fit(net_of(), batches, config, 320, World(), **QUIET)
    batches.close()


@pytest.mark.parametrize("step", [1, 9], ids=["then more steps", "the last"])
def test_a_step_that_is_too_large_for_a_gpu_is_told_where_the_ranks_meet_next(step):
    """Which may be a report, in which the others wait for this one."""
    net, count, met = net_of(), itertools.count(), []

    class Second(World):
        def sum(self, values):
            met.append(values.shape)
            return values

    def too_large(module, given):
        if next(count) == step:
            raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    net.register_forward_pre_hook(too_large)
    batches = batches_of(stripes(64))
    with pytest.raises(RunError, match="^a GPU .* 16 images at once: CUDA out of memory. Try "):
        fit(net, batches, CONFIG, 160, Second(), **QUIET)
    batches.close()
    assert met[-1] == ((2,) if step == 1 else ())


class SecondRankSaw(World):
    """The first of two ranks; the other's values are three times as large."""

    size = 2

    def sum(self, values):
        return values + 3 * values


def test_running_moments_of_the_ranks_are_averaged():
    norm = nn.BatchNorm2d(2)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    average_buffers(norm, SecondRankSaw())
    assert norm.running_mean.tolist() == [2.0, 4.0] and norm.running_var.tolist() == [2.0, 2.0]
    assert torch.equal(norm.weight, torch.ones(2))


def test_a_rank_tests_only_its_own_share():
    class Asked:
        def __init__(self, images):
            self.images, self.numbers = images, []
            self.count, self.labels = images.count, images.labels

        def read(self, numbers):
            self.numbers += numbers
            return self.images.read(numbers)

    class Second(World):
        rank, size = 1, 2

    asked = Asked(stripes(9))
    table = count_confusion(net_of(), asked, 2, Second())
    assert asked.numbers == [1, 3, 5, 7] and np.asarray(table).sum() == 4


def test_testing_leaves_the_running_moments_alone():
    net = net_of().train()
    before = [buffer.clone() for buffer in net.buffers()]
    count_confusion(net, stripes(8), 2, World())
    assert all(torch.equal(a, b) for a, b in zip(before, net.buffers(), strict=True))
