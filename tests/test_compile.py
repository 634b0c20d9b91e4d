"""``train.compile`` on a CPU: the gradients and the runs of the network as it is."""

from dataclasses import replace

import pytest
import torch
from gloo_tools import Job, launch, read_losses, tiny_config
from torch import nn
from training_tools import BATCH, K, make_batch, make_inputs, on_device

from cbdm_scale.models.build import build
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.training.distributed import World
from cbdm_scale.training.gradients import backward
from cbdm_scale.training.step import compiled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # a minute of CPU a compilation


def small_net():
    """With a level below the first: upsampling, convolution and norm are fused in one."""
    torch.manual_seed(0)
    config = UNetConfig(
        channels=16, multipliers=(1, 2), num_blocks=1, attention=(), groups=8, dropout=0.0
    )
    net = build(NetworkSpec(model=config, channels=1, image_size=8, num_classes=K))
    for parameter in net.parameters():  # a fresh one predicts nearly 0
        if parameter.ndim > 1 and parameter.std() < 2e-3:
            nn.init.xavier_uniform_(parameter, 0.5)
    return net.to(memory_format=torch.channels_last)


def gradient(net, call, precision):
    inputs, batch = make_inputs(), make_batch(torch.arange(BATCH))
    parts = on_device(batch, inputs.draw, micro_batch=4)
    net.zero_grad()
    list(backward(call, inputs.loss, parts, World(), precision=precision))
    return {name: p.grad.clone() for name, p in net.named_parameters()}


def worst(found, expected):
    """The largest |a - b| / |b| over the parameters."""
    return max(
        ((found[name] - g).norm() / g.norm().clamp_min(1e-6)).item()
        for name, g in expected.items()
    )


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("bf16", 0.1)])
def test_compiled_gradients_are_the_eager_ones(precision, most):
    """With bf16 and channels_last those of norms were silently wrong in some torch."""
    net = small_net()
    expected = gradient(net, net, precision)
    assert worst(gradient(net, compiled(net), precision), expected) < most


def test_two_ranks_that_compile_have_the_losses_of_two_that_do_not(digits_root, tmp_path):
    jobs = {}
    for name, compiles in (("eager", False), ("compiled", True)):
        config = tiny_config(digits_root, str(tmp_path), name, steps=6, dropout=0.0)
        config = replace(config, train=replace(config.train, compile=compiles))
        jobs[name] = Job(config, 2)
    assert launch(list(jobs.values()), tmp_path / "meetings") == [0, 0]
    found, expected = read_losses(jobs["compiled"]), read_losses(jobs["eager"])
    assert len(found) == 6
    assert found == pytest.approx(expected, rel=1e-4, abs=0)
