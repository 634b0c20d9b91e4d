"""The Diffusion-ViT: its block against a transcription, patches and tokens in their places."""

import pytest
import torch
import torch.nn.functional as F

from cbdm_scale.models.options import ViTConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.models.vit import Block, ViT

TINY = ViTConfig(patch=2, depth=2, width=32, heads=4)


def shaken(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return module


def tiny():
    torch.manual_seed(0)
    return shaken(ViT(TINY, NetworkSpec(model=TINY, channels=3, image_size=8, num_classes=4)))


def test_a_block_scales_and_shifts_tokens_then_attends_then_expands():
    torch.manual_seed(0)
    block = shaken(Block(TINY, 5))
    x, emb = torch.randn(2, 5, 32), torch.randn(2, 20)
    told = F.linear(emb, block.modulation.weight, block.modulation.bias)
    x_in = x * (1 + told[:, :5, None]) + told[:, 5:, None]
    normed = F.layer_norm(x_in, (32,), block.norm_1.weight, block.norm_1.bias)
    q, k, v = F.linear(normed, block.attention.qkv.weight).split(32, dim=2)
    heads = []
    for i in range(0, 32, 8):
        scores = q[..., i : i + 8] @ k[..., i : i + 8].transpose(1, 2) / 8**0.5
        heads.append(scores.softmax(2) @ v[..., i : i + 8])
    out = block.attention.out
    h = x_in + F.linear(torch.cat(heads, 2), out.weight, out.bias)
    normed = F.layer_norm(h, (32,), block.norm_2.weight, block.norm_2.bias)
    hidden = F.gelu(F.linear(normed, block.hidden.weight, block.hidden.bias))
    expected = h + F.linear(hidden, block.out.weight, block.out.bias)
    torch.testing.assert_close(block(x, emb), expected, rtol=1e-5, atol=1e-5)
    assert block.hidden.weight.shape == (64, 32)


def test_a_pixel_comes_back_to_its_place():
    """With the blocks out of the way the network sees each patch for itself."""
    net = tiny()
    for block in net.blocks:
        block.forward = lambda h, emb: h
    x = torch.randn(1, 3, 8, 8)
    other = x.clone()
    other[0, :, 2:4, 4:6] += 1
    t, y = torch.tensor([5]), torch.tensor([1])
    changed = (net(x, t, y) != net(other, t, y)).any(1)[0]
    assert changed[2:4, 4:6].all() and changed.sum() == 4


def test_tokens_know_their_places_and_the_first_is_none_of_the_images():
    net, x = tiny(), torch.randn(1, 3, 8, 8)
    t, y = torch.tensor([5]), torch.tensor([1])
    out = net(x, t, y)
    assert not torch.allclose(net(x.flip(-1), t, y).flip(-1), out, atol=1e-4)
    with torch.no_grad():
        net.first += torch.randn(32)
    assert not torch.allclose(net(x, t, y), out, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"patch": 0}, "model.patch must be at least 1, got 0. Try --model.patch 4"),
        ({"depth": 0}, "model.depth must be at least 1, got 0. Try --model.depth 9"),
        ({"heads": 0}, "model.heads must be at least 1, got 0. Try --model.heads 12"),
        (
            {"expansion": 0},
            "model.expansion must be at least 1, got 0. Try --model.expansion 2",
        ),
        ({"width": 100}, r"model.width \(100\) .* model.heads \(12\). Try --model.width 96"),
        (
            {"dropout": 1.0},
            r"model.dropout must be at least 0 and below 1, got 1. Try --model.dropout 0",
        ),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        ViTConfig(**options)
