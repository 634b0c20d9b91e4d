"""DDPM++ and NCSN++: blocks, filters and features against transcriptions by hand."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from cbdm_scale.models.options import TAPS, SongConfig
from cbdm_scale.models.songunet import (
    RESCALE,
    Block,
    Filter,
    SongUNet,
    frequencies,
    norm_groups,
)
from cbdm_scale.models.spec import NetworkSpec

SMALL = SongConfig(channels=16, multipliers=(1, 2), num_blocks=1, attention=(1,), dropout=0.0)
NCSN = dataclasses.replace(SMALL, embedding="fourier", filter="smooth", residual_input=True)


def net_of(config, size=3):
    torch.manual_seed(0)
    return SongUNet(
        config, NetworkSpec(model=config, channels=size, image_size=8, num_classes=4)
    )


def shaken(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return module


# ----------------------------------------------------------------------------
# Filters.


def test_the_box_is_a_mean_of_four_pixels_and_nearest_neighbours():
    box, x = Filter(TAPS["box"]), torch.randn(2, 3, 6, 8)
    torch.testing.assert_close(box.down(x), F.avg_pool2d(x, 2))
    torch.testing.assert_close(box.up(x), F.interpolate(x, scale_factor=2))


def test_the_smooth_filter_is_1_3_3_1_along_each_axis():
    smooth, x = Filter(TAPS["smooth"]), torch.randn(1, 2, 6, 6)
    padded = F.pad(x, (1, 1, 1, 1))
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    columns = sum(w * padded[..., i : i + 6 - 1 : 2] for i, w in enumerate(taps))
    expected = sum(w * columns[..., i : i + 6 - 1 : 2, :] for i, w in enumerate(taps))
    torch.testing.assert_close(smooth.down(x), expected)
    # Doubling is the transpose of halving, four times: a pixel becomes four.
    y = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close((smooth.up(y) * x).sum(), 4 * (y * smooth.down(x)).sum())


@pytest.mark.parametrize("name", TAPS)
def test_a_slope_stays_where_it_is(name):
    """Halving, doubling and blur-then-stride move nothing sideways: away from the border a
    ramp keeps its values at the centres of the pixels."""
    resample = Filter(TAPS[name])
    ramp = torch.arange(16.0).expand(1, 1, 16, 16) + 0.5  # centres, in pixels
    halved = torch.arange(8.0) * 2 + 1
    torch.testing.assert_close(resample.down(ramp)[0, 0, 4, 2:-2], halved[2:-2])
    middle = torch.zeros(1, 1, 3, 3)
    middle[..., 1, 1] = 1
    strided = F.conv2d(resample.blur(ramp), middle, stride=2)
    assert strided.shape == (1, 1, 8, 8)
    torch.testing.assert_close(strided[0, 0, 4, 2:-2], halved[2:-2])
    up = resample.up(ramp)[0, 0, 8, 4:-4]
    assert (up.view(-1, 2).mean(1) - ramp[0, 0, 0, 2:-2]).abs().max() < 1e-5


# ----------------------------------------------------------------------------
# Blocks.


@pytest.mark.parametrize("way", ["", "down", "up"])
def test_a_block_is_two_convolutions_and_a_shortcut_resampled_and_rescaled(way):
    torch.manual_seed(0)
    resample = Filter(TAPS["smooth"])
    block = shaken(Block(16, 32, SMALL, resample, way=way))
    x, emb = torch.randn(2, 16, 8, 8), torch.randn(2, 64)
    sized = getattr(resample, way) if way else lambda image: image
    h = F.silu(F.group_norm(x, 4, block.norm_1.weight, block.norm_1.bias, 1e-6))
    h = F.conv2d(sized(h), block.conv_1.weight, block.conv_1.bias, padding=1)
    h = h + F.linear(emb, block.emb.weight, block.emb.bias).view(2, 32, 1, 1)
    h = F.silu(F.group_norm(h, 8, block.norm_2.weight, block.norm_2.bias, 1e-6))
    h = F.conv2d(h, block.conv_2.weight, block.conv_2.bias, padding=1)
    h = h + F.conv2d(sized(x), block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x, emb), h / math.sqrt(2))


def test_attention_is_added_and_rescaled_too():
    torch.manual_seed(0)
    resample = Filter(TAPS["box"])
    block = shaken(Block(16, 16, SMALL, resample, attention=True))
    x, emb = torch.randn(2, 16, 4, 4), torch.randn(2, 64)
    plain = Block(16, 16, SMALL, resample)
    plain.load_state_dict(
        {k: v for k, v in block.state_dict().items() if not k.startswith("attention")}
    )
    expected = block.attention(plain(x, emb)) / math.sqrt(2)
    torch.testing.assert_close(block(x, emb), expected)
    assert block.attention.norm.eps == 1e-6


def test_groups_have_four_channels_or_there_are_32():
    assert [norm_groups(c) for c in (4, 24, 128, 256, 384, 168)] == [1, 6, 32, 32, 32, 28]


def test_attention_stands_where_edm_has_it():
    """After every block of its levels on the way down, after the last on the way up."""
    net = net_of(dataclasses.replace(SMALL, multipliers=(1, 2, 2), num_blocks=2))
    places = [name for name, b in net.named_modules() if getattr(b, "attention", None)]
    # Down: 2 blocks, then a halving and 2 blocks, twice. Up: 3 and a doubling, twice, and 3.
    assert sorted(places) == ["down.3", "down.4", "middle.0", "up.6"]
    ways = [block.way for block in [*net.down, *net.up]]
    assert ways == [*["", ""], *["down", "", ""] * 2, *["", "", "", "up"] * 2, *["", "", ""]]


def test_ncsnpp_takes_the_image_again_at_every_level():
    net = shaken(net_of(dataclasses.replace(NCSN, multipliers=(1, 2, 2))))
    shapes = [tuple(layer.weight.shape) for layer in net.again]
    assert shapes == [(16, 3, 3, 3), (32, 16, 3, 3)]  # the second halves the first's sum
    seen = []
    net.down[2].register_forward_hook(lambda module, args, out: seen.append(args[0]))
    net.down[1].register_forward_hook(lambda module, args, out: seen.append(out))
    x = torch.randn(2, 3, 8, 8)
    net(x, torch.tensor([1, 2]), torch.tensor([0, 4]))
    halved, entered = seen
    blurred = F.conv2d(net.down[1].resample.blur(x), net.again[0].weight, None, 2)
    expected = (halved + blurred + net.again[0].bias.view(1, -1, 1, 1)) * RESCALE
    torch.testing.assert_close(entered, expected)
    assert len(net_of(SMALL).again) == 0


# ----------------------------------------------------------------------------
# What is told.


def test_fourier_frequencies_have_the_law_of_a_normal_of_16():
    waves = frequencies(4096).double()
    assert (waves > 0).all() and waves.square().mean().sqrt().item() == pytest.approx(16, 0.01)
    below = (waves < 16).double().mean().item()
    assert below == pytest.approx(math.erf(math.sqrt(0.5)), abs=1e-3)
    assert len(waves.unique()) == 4096


def test_fourier_features_hear_steps_as_shares_of_t_and_other_levels_as_they_are():
    net = net_of(NCSN)
    features = net.step(torch.tensor([0, 250]))
    assert features.shape == (2, 32)
    torch.testing.assert_close(net.step(torch.tensor([0.0, 0.25])), features)
    turns = 2 * math.pi * 0.25 * net.frequencies
    torch.testing.assert_close(features[1], torch.cat([turns.cos(), turns.sin()]))


def test_label_and_level_are_added_before_the_perceptron():
    net = shaken(net_of(SMALL))
    t, y = torch.tensor([3, 700]), torch.tensor([1, 4])
    emb = net.step(t) + net.label.weight[y]
    hidden = F.silu(F.linear(emb, net.time_1.weight, net.time_1.bias))
    expected = F.silu(F.linear(hidden, net.time_2.weight, net.time_2.bias))
    torch.testing.assert_close(net.embed(t, y, None), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 30}, r"model.channels \(30\) must be a multiple of 4. Try .* 28"),
        ({"channels": 0}, r"model.channels \(0\).* Try --model.channels 4"),
        ({"multipliers": ()}, r"model.multipliers must be 1 to 16 values, got none"),
        ({"num_blocks": 0}, "model.num_blocks must be from 1 to 256, got 0"),
        ({"attention": (3,)}, r"model.attention \(3,\) .* 0..2"),
        (
            {"dropout": 1.0},
            r"model.dropout must be at least 0 and below 1, got 1. Try --model.dropout 0.13",
        ),
        ({"embedding": "learnt"}, "model.embedding must be positional or fourier, got 'lea"),
        ({"filter": "cubic"}, "model.filter must be box or smooth, got 'cubic'"),
    ],
)
def test_wrong_configurations_name_option_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        SongConfig(**options)
