"""What the network promises: the paper's formulas, labels and steps that reach it."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cbdm_scale.models.build import build
from cbdm_scale.models.norm import GroupNorm
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.models.unet import Attention, ResidualBlock

K = 5
SMALL = UNetConfig(
    channels=16, multipliers=(1, 2), num_blocks=1, attention=(1,), groups=8, dropout=0.0
)


def lively(net: nn.Module) -> nn.Module:
    """Move every weight, as training would: fresh networks predict almost exactly 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net


def small(config: UNetConfig = SMALL, **sizes: int | bool) -> nn.Module:
    torch.manual_seed(0)
    spec = NetworkSpec(model=config, channels=3, image_size=8, num_classes=K)
    return lively(build(dataclasses.replace(spec, **sizes)))


def batch() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return x, torch.tensor([0, 3, 500, 999]), torch.tensor([0, 4, 2, K])


# ----------------------------------------------------------------------------
# The parts against transcriptions by hand.


def test_attention_is_softmax_of_scaled_products_over_pixels():
    torch.manual_seed(0)
    attention = lively(Attention(16, 8))
    x = torch.randn(2, 16, 3, 5)
    normed = F.group_norm(x, 8, attention.norm.weight, attention.norm.bias)
    q, k, v = (F.conv2d(normed, attention.qkv.weight, attention.qkv.bias)).chunk(3, dim=1)
    expected = torch.zeros_like(x)
    for n in range(2):
        for i in range(15):
            scores = q[n].flatten(1)[:, i] @ k[n].flatten(1) / 4  # sqrt(16 channels)
            mixed = v[n].flatten(1) @ scores.softmax(0)
            out = attention.out.weight[:, :, 0, 0] @ mixed + attention.out.bias
            expected[n, :, i // 5, i % 5] = x[n, :, i // 5, i % 5] + out
    torch.testing.assert_close(attention(x), expected, rtol=1e-5, atol=1e-5)


def test_residual_block_is_two_convolutions_around_the_embedding():
    torch.manual_seed(0)
    block = lively(ResidualBlock(16, 32, SMALL, attention=False))
    x, emb = torch.randn(2, 16, 4, 4), torch.randn(2, 64)
    h = F.silu(F.group_norm(x, 8, block.norm_1.weight, block.norm_1.bias))
    h = F.conv2d(h, block.conv_1.weight, block.conv_1.bias, padding=1)
    h = h + F.linear(emb, block.emb.weight, block.emb.bias).view(2, 32, 1, 1)
    h = F.silu(F.group_norm(h, 8, block.norm_2.weight, block.norm_2.bias))
    h = F.conv2d(h, block.conv_2.weight, block.conv_2.bias, padding=1)
    expected = h + F.conv2d(x, block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x, emb), expected)


def test_attention_stands_at_the_named_levels_and_first_in_the_middle():
    config = dataclasses.replace(SMALL, multipliers=(1, 2, 2), num_blocks=2, attention=(0, 2))
    net = small(config)
    places = {
        name.rpartition(".attention")[0]
        for name, module in net.named_modules()
        if isinstance(module, Attention)
    }
    down = {f"down.{level}.blocks.{i}" for level in (0, 2) for i in range(2)}
    up = {f"up.{2 - level}.blocks.{i}" for level in (0, 2) for i in range(3)}
    assert places == down | up | {"middle.0"}


# ----------------------------------------------------------------------------
# The whole network.


@pytest.mark.parametrize(
    ("config", "channels", "size"),
    [
        pytest.param(SMALL, 1, 8, id="digits"),
        pytest.param(dataclasses.replace(SMALL, multipliers=(1,), attention=()), 3, 7, id="1"),
        pytest.param(UNetConfig(channels=32, multipliers=(1, 1, 2)), 3, 16, id="32 groups"),
    ],
)
def test_prediction_has_the_shape_of_the_image(config, channels, size):
    net = small(config, channels=channels, image_size=size)
    x = torch.randn(2, channels, size, size)
    out = net(x, torch.tensor([1, 2]), torch.tensor([0, K]))
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_levels_may_be_floats():
    net, (x, t, y) = small(), batch()
    torch.testing.assert_close(net(x, t.float(), y), net(x, t, y), rtol=1e-5, atol=1e-5)
    halfway = net(x, t + 0.5, y)
    assert (halfway - net(x, t, y)).abs().max() > 1e-4


def test_the_table_of_steps_is_no_weight():
    net = small()
    assert not any("table" in name for name in net.state_dict())
    longer = small(num_steps=4000)
    longer.load_state_dict(net.state_dict())
    x, t, y = batch()
    torch.testing.assert_close(longer(x, t, y), net(x, t, y))
    longer(x, t + 3000, y)


def test_a_fresh_network_predicts_nearly_nothing_and_its_blocks_do_nearly_nothing():
    torch.manual_seed(0)
    net, (x, t, y) = (
        build(NetworkSpec(model=SMALL, channels=3, image_size=8, num_classes=K)),
        batch(),
    )
    assert net(x, t, y).abs().max() < 1e-3
    h, emb = torch.randn(2, 32, 4, 4), torch.randn(2, 64)
    torch.testing.assert_close(net.middle[0](h, emb), h, rtol=0, atol=1e-3)
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    assert not any(p.any() for p in biases)


def test_query_key_and_value_are_initialised_as_layers_of_their_own():
    torch.manual_seed(0)
    for part in Attention(64, 32).qkv.weight.chunk(3):
        bound = math.sqrt(6 / (64 + 64))
        assert part.abs().max().item() == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize("groups", [8, 16])
def test_one_channel_a_group_makes_a_block_deaf_to_its_embedding(groups):
    config = dataclasses.replace(SMALL, groups=groups)
    block = lively(ResidualBlock(16, 16, config, attention=False))
    x, emb = torch.randn(2, 16, 4, 4), torch.randn(2, 64)
    difference = (block(x, emb) - block(x, -emb)).abs().max().item()
    assert (difference < 1e-4) == (groups == 16)


# ----------------------------------------------------------------------------
# Precision and memory formats.


def test_bf16_leaves_norms_embeddings_and_the_last_layer_in_float32():
    net, (x, t, y) = small(), batch()
    kinds: dict[str, set[torch.dtype]] = {"norm": set(), "conv": set()}
    for name, module in net.named_modules():
        kind = "norm" if isinstance(module, GroupNorm) else "conv"
        if isinstance(module, (GroupNorm, nn.Conv2d)) and name != "tail":
            module.register_forward_hook(lambda m, i, o, kind=kind: kinds[kind].add(o.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        emb = net.embed(t, y, None)
        out = net(x, t, y)
    exact = copy.deepcopy(net).double().embed(t, y, None)
    torch.testing.assert_close(emb, exact.float(), rtol=1e-5, atol=1e-5)
    assert kinds == {"norm": {torch.float32}, "conv": {torch.bfloat16}}
    assert (out != out.bfloat16().float()).any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_norms_of_bf16_images_are_exact_to_float32(memory_format):
    norm = GroupNorm(8, 16)
    x = (torch.randn(2, 16, 8, 8) + 3).bfloat16().to(memory_format=memory_format)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x)
    expected = F.group_norm(x.double(), 8)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)


def test_attention_of_images_in_channels_last_is_flash_attention_without_copies():
    """Query, key and value are views whose channels lie together, and so is the result."""
    calls = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append((str(func), args))
            return func(*args, **(kwargs or {}))

    layer = Attention(64, 32).to(memory_format=torch.channels_last)
    x = torch.randn(2, 64, 4, 4).to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), Calls():
        out = layer(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not [name for name, _ in calls if "clone" in name or "copy_" in name]
    [tokens] = [args[:3] for name, args in calls if "flash_attention" in name]
    for one in tokens:
        assert one.shape == (2, 1, 16, 64) and one.dtype == torch.bfloat16
        assert one.stride(-1) == 1 and one.stride(-2) == 3 * 64


# ----------------------------------------------------------------------------
# Wrong values.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 100}, r"model.channels \(100\) .* model.groups \(32\). Try --model.ch"),
        ({"channels": 7, "groups": 7}, r"model.channels \(7\) must be even"),
        ({"channels": 0}, r"model.channels \(0\)"),
        ({"groups": 0}, "model.groups must be at least 1, got 0"),
        ({"multipliers": ()}, r"model.multipliers must be 1 to 16 values, got none"),
        ({"multipliers": (1, 0)}, r"model.multipliers must be at least 1 each, got 1 0"),
        ({"num_blocks": 0}, "model.num_blocks must be from 1 to 256, got 0"),
        ({"attention": (4,)}, r"model.attention \(4,\) .* 0..3, as model.multipliers has 4"),
        ({"attention": (1, 1)}, r"model.attention \(1, 1\) must name different levels"),
        ({"dropout": 1.0}, r"model.dropout must be at least 0 and below 1, got 1"),
    ],
)
def test_wrong_configurations_name_option_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**options)
