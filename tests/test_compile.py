"""``train.compile`` on a CPU: the gradients and the runs of the network as it is, also where it
cannot be compiled."""

from dataclasses import replace

import pytest
import torch
from gloo_tools import Job, launch, read_losses, tiny_config
from torch import nn
from training_tools import (
    BATCH,
    CONFIG,
    K,
    assert_same,
    fresh_state,
    make_batch,
    make_callbacks,
    make_inputs,
    on_device,
    tensors,
)

from cbdm_scale.models.build import build
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.training.distributed import World
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.gradients import backward
from cbdm_scale.training.loop import train
from cbdm_scale.training.step import Compiled

COMPILE = torch.compile


def slow(test):
    """A minute of CPU a compilation."""
    return pytest.mark.slow(pytest.mark.timeout(1200)(test))


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


@slow
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("bf16", 0.1)])
def test_compiled_gradients_are_the_eager_ones(precision, most):
    """With bf16 and channels_last those of norms were silently wrong in some torch."""
    net = small_net()
    expected = gradient(net, net, precision)
    call = Compiled(net, pytest.fail)
    assert worst(gradient(net, call, precision), expected) < most
    assert call.call is not net


@slow
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


def without_a_compiler(net, **options):
    """torch's own, with a backend that finds no compiler."""

    def backend(graph, inputs):
        raise RuntimeError("no working C++ compiler\nand where it looked")

    return COMPILE(net, backend=backend)


class FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        raise RuntimeError("no working C++ compiler")


def without_one_for_the_backward(net, **options):
    def call(x, *given, **named):
        torch.rand(3)  # as dropout in the network does
        return FailsBackward.apply(net(x, *given, **named))

    return call


@pytest.mark.parametrize("compiler", [without_a_compiler, without_one_for_the_backward])
def test_a_run_that_cannot_be_compiled_is_the_eager_one_and_says_why(compiler, monkeypatch):
    """Bit for bit, with dropout; once, and not by workers that fail and are started again."""
    monkeypatch.setattr(torch, "compile", compiler)
    states, said = [], []
    for compiles in (False, True):
        state = fresh_state()
        state.net.last = nn.Sequential(nn.Dropout(0.5), state.net.last)
        config = replace(CONFIG, total_images=3 * BATCH, compile=compiles)
        state.optimizer = torch.optim.Adam(state.net.parameters(), fused=True)
        state.ema = EMA(state.net, CONFIG.ema_halflife)
        train(state, make_inputs(), config, World(), make_callbacks(log=said.append))
        states.append(tensors(state))
    (line,) = said
    assert line.startswith("train.compile: off, because ") and "no working C++ compiler" in line
    assert "where it looked" not in line
    assert_same(*states)


def test_too_little_memory_to_compile_is_no_reason_to_go_on():
    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    call = Compiled(small_net(), pytest.fail)
    call.net.forward = full
    with pytest.MonkeyPatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(torch, "compile", lambda net, **options: net)
        call(torch.zeros(1))
