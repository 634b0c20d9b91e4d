"""What only a GPU can show: its numbers are the CPU's, with every backbone, loss and sampler.

torch, numpy, scipy, safetensors and pytest are enough for this and its neighbours:

    python3 -m pytest -m gpu --noconftest -o addopts= -o filterwarnings= tests/test_gpu*.py
"""

import datetime
import math
from dataclasses import replace

import gpu_tools
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from gpu_tools import (
    LOSSES,
    ON_CPU,
    ON_GPU,
    SAMPLERS,
    awake,
    combinations,
    difference,
    limit,
    needs_cuda,
)
from torch import nn

from benchmarks.gpu import older_torch
from benchmarks.gpu.context import Context, fresh
from benchmarks.gpu.loop import make_batch, new_state, run_loop
from benchmarks.step import NUM_CLASSES
from cbdm_scale.data.groups import class_groups
from cbdm_scale.data.loader import Batch
from cbdm_scale.data.pixels import to_model_range, to_uint8
from cbdm_scale.devices import make_deterministic, open_device
from cbdm_scale.generation.network import sampling_net
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.features import ClassifierRecipe
from cbdm_scale.metrics.groups import GroupScores, fid_by_group, stored_manifold
from cbdm_scale.models.norm import GroupNorm
from cbdm_scale.models.options import BACKBONES, UNetConfig
from cbdm_scale.models.resnet import ResNet32
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.recognition.fit import count_confusion, fit
from cbdm_scale.recognition.options import FitConfig
from cbdm_scale.sampling.graphed import GraphedNet
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.checkpoint import load_newest, save_checkpoint
from cbdm_scale.training.distributed import DistributedWorld, World

pytestmark = gpu_tools.of_a_gpu


@pytest.fixture(scope="module")
def context():
    older_torch.allow()
    before = torch.get_num_threads()
    yield Context(device=open_device(ON_GPU), tiny=True, bench=None)
    torch.backends.cudnn.allow_tf32 = True
    torch.set_num_threads(before)


@pytest.fixture
def deterministic(context, monkeypatch):
    """--train.deterministic, in this test alone."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    make_deterministic(context.device)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.enable_cudnn_sdp(True)


def net(context, dropout=0.0):
    model = UNetConfig(channels=16, multipliers=(1, 2), num_blocks=1, groups=8, dropout=dropout)
    spec = NetworkSpec(model=model, channels=3, image_size=8, num_classes=NUM_CLASSES)
    return awake(fresh(spec)).to(context.device, memory_format=torch.channels_last)


def weights(state):
    return torch.cat([p.detach().flatten().cpu() for p in state.net.parameters()])


def test_random_words_are_the_cpus_and_normals_within_1e_6(context):
    same, off = gpu_tools.random_differences(context)
    print(f"normal numbers: {off}")
    assert same and off <= 1e-6


@pytest.mark.parametrize("backbone, process, loss", combinations())
def test_gradients_are_the_cpus(context, backbone, process, loss):
    wide = context if ON_CPU else replace(context, tiny=False)
    found = gpu_tools.network(wide, backbone, LOSSES[loss])
    off = gpu_tools.gradient_differences(wide, found, LOSSES[loss], process)
    print(f"{backbone}, {process}, {loss}: {off}")
    assert all(value < limit(backbone, precision) for precision, value in off.items()), off


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels, size", [(128, 32), (384, 32), (512, 16), (256, 4)])
def test_group_norm_is_float64s(context, channels, size, dtype):
    layer = GroupNorm(32, channels, silu=True).to(context.device)
    x = 2 * torch.randn(16, channels, size, size, device=context.device) + 1
    x = x.to(dtype, memory_format=torch.channels_last).requires_grad_()
    y, dy = layer(x), torch.randn_like(x)
    y.backward(dy)
    exact = [v.detach().double().requires_grad_() for v in (x, layer.weight, layer.bias)]
    z = F.silu(F.group_norm(exact[0], 32, exact[1], exact[2]))
    z.backward(dy.double())
    rounding = 1e-5 if dtype == torch.float32 else 4e-3
    found = y, x.grad, layer.weight.grad, layer.bias.grad
    for mine, theirs in zip(found, (z, *(v.grad for v in exact)), strict=True):
        assert difference(mine, theirs) < rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_norm_behind_a_convolution_and_the_embedding_is_that_of_their_sum(context, dtype):
    """The kernel adds bias and embedding itself: prediction and every gradient."""
    layer, norm = nn.Conv2d(96, 384, 3, padding=1), GroupNorm(32, 384, silu=True)
    layer = layer.to(context.device, memory_format=torch.channels_last)
    norm = norm.to(context.device)
    x = torch.randn(8, 96, 16, 16, device=context.device).to(memory_format=torch.channels_last)
    given = x.requires_grad_(), torch.randn(8, 384, device=context.device, requires_grad=True)
    leaves = [*given, *layer.parameters(), *norm.parameters()]
    with torch.autocast(context.device.type, torch.bfloat16, dtype == torch.bfloat16):
        y = norm.after(layer, *given)
    z = F.silu(
        F.group_norm(
            F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
            + given[1].double()[:, :, None, None],
            32,
        )
    )
    dy = torch.randn_like(z)
    found = torch.autograd.grad(y, leaves, dy.to(y.dtype))
    rounding = 2e-5 if dtype == torch.float32 else 1e-2
    for mine, theirs in zip(found[:4], torch.autograd.grad(z, leaves[:4], dy), strict=True):
        assert difference(mine, theirs) < rounding
    assert difference(y, z) < rounding


@needs_cuda
def test_replayed_calls_are_the_networks(context):
    """Two shapes in turn, as guidance in an interval asks for; nothing falls back."""
    there = net(context).eval()
    called = sampling_net(there, context.device, "bf16")
    for n, seed in [(8, 0), (4, 1), (8, 2), (4, 3)]:
        torch.manual_seed(seed)
        x = torch.randn(n, 3, 8, 8, device=context.device)
        level, y = (torch.randint(0, 100, (n,), device=context.device) for _ in range(2))
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            expected = there(x.to(memory_format=torch.channels_last), level, y)
        assert difference(called(x, level, y), expected) < 1e-2
    assert isinstance(called, GraphedNet) and len(called.recorded) == 2 and not called.refused


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_make_the_cpus_images_and_the_same_bytes_again(context, sampler):
    off = gpu_tools.sampler_differences(context, sampler)
    print(f"{sampler}: {off}")
    assert off["most"] <= 1 and off["share"] < 0.01 and off["most, again"] == 0


def test_a_step_whose_gradient_is_not_finite_is_left_out(context):
    bad = replace(make_batch(8, 8), x=torch.full((8, 3, 8, 8), math.inf))
    run = run_loop(context, net(context), LossConfig(), 8, 3, warm_up=0)
    before = weights(run.state)
    run = run_loop(context, run.state, LossConfig(), 8, 2, warm_up=0, batch=bad)
    assert run.state.progress.skipped_steps == 2 and weights(run.state).equal(before)
    counted = {float(s["step"]) for s in run.state.optimizer.state.values()}
    assert counted == {3.0}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_deterministic_run_repeats_bit_for_bit(context, deterministic, backbone):
    loss = LOSSES["cbdm+tcfg"]
    batch = make_batch(16, context.size, augment=backbone == "ddpmpp")

    def ends():
        there = gpu_tools.network(context, backbone, loss).to(context.device)
        run = run_loop(context, there, loss, 16, 3, warm_up=0, batch=batch)
        return weights(run.state)

    assert ends().equal(ends())


def test_a_checkpoint_goes_on_with_the_same_bits(context, deterministic, tmp_path):
    def start():
        return new_state(net(context, dropout=0.1), posthoc=True)

    def go_on(state, steps):
        found = run_loop(context, state, LossConfig(), 16, steps, warm_up=0)
        return found.state

    whole = go_on(start(), 6)
    first, second = go_on(start(), 3), start()
    save_checkpoint(Storage(str(tmp_path)), first, {})
    name, damaged = load_newest(Storage(str(tmp_path)), second)
    assert name and not damaged and second.progress.num_seen == 48
    assert weights(go_on(second, 3)).equal(weights(whole))


def test_an_evaluation_under_bf16_has_finite_scores(context):
    torch.manual_seed(0)
    small = SmallClassifier(image_channels=3, image_size=8, num_classes=10)
    extractor = ClassifierRecipe(save_classifier(small), "x").load(context.device)
    groups = class_groups([500 - 50 * c for c in range(10)])
    y, pixels = torch.arange(100) % 10, torch.rand(2, 100, 3, 8, 8) * 2 - 1
    sides = []
    with torch.autocast(context.device.type, dtype=torch.bfloat16):
        for x in pixels:
            sides.append(GroupScores(groups, extractor.dim, 100))
            features = extractor(to_model_range(to_uint8(x)).to(context.device))
            assert features.pool.dtype == torch.float32
            sides[-1].add(features, y, torch.arange(100))
    assert math.isfinite(fid_by_group(*sides)["fid"])
    assert stored_manifold(*sides, (y, y), seed=0)[None].recall >= 0


class Black:
    count, labels, fingerprint = 300, np.arange(300) % 10, ""

    def read(self, numbers):
        return np.zeros((len(numbers), 3, 32, 32), np.uint8)


def test_a_classifier_is_fitted_and_counts_its_confusion(context):
    def source():
        while True:
            x, ids = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8), torch.arange(32)
            yield Batch(x, ids % 10, ids, ("",) * 32, ())

    torch.manual_seed(0)
    there = ResNet32(image_channels=3, image_size=32, num_classes=10).to(context.device)
    world, config = World(str(context.device)), FitConfig(batch_size=32, log_every=64)
    assert fit(there, source(), config, 128, world, lambda n, loss: None, lambda: False)
    assert count_confusion(there, Black(), 10, world).sum() == 300


def test_nccl_and_gloo_reduce_beside_each_other(context, monkeypatch):
    for backend in ("GLOO", "NCCL"):
        monkeypatch.setenv(f"{backend}_SOCKET_IFNAME", "lo")
    minute = datetime.timedelta(seconds=60)
    store = dist.TCPStore("127.0.0.1", 0, 1, True, minute)
    backend = "nccl" if ON_GPU else "gloo"
    dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=minute)
    try:
        world = DistributedWorld(context.device)
        assert world.sum(torch.ones(3).double()).tolist() == [1, 1, 1]
        assert world.gather({"a": 1}) == [{"a": 1}]
        world.broadcast([torch.ones(3, device=context.device)])
        with world.monitored_barrier():
            pass
    finally:
        dist.destroy_process_group()
