"""DINOv2's transformer against torch's own encoder, which knows no layer scale."""

import pytest
import torch
from extractor_tools import dinov2_shapes
from torch import nn

from cbdm_scale.metrics.dinov2 import SIDE, transform
from cbdm_scale.metrics.extractors import find_extractor

D, DEPTH = 128, 2


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return {n: 0.1 * torch.randn(shape) for n, shape in dinov2_shapes(D, DEPTH).items()}


def by_torch(state, x):
    """The same network of torch's layers, the layer scales multiplied into the weights."""
    grid = state["pos_embed"][:, 1:].view(1, 37, 37, D).permute(0, 3, 1, 2)
    places = nn.functional.interpolate(grid, scale_factor=16.1 / 37, mode="bicubic")
    places = places.flatten(2).transpose(1, 2)
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    h = nn.functional.conv2d(x, weight, bias, stride=14).flatten(2).transpose(1, 2) + places
    first = state["cls_token"] + state["pos_embed"][:, :1]
    h = torch.cat([first.expand(len(x), -1, -1), h], 1)
    for i in range(DEPTH):
        b = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items()}
        one, two = b["ls1.gamma"], b["ls2.gamma"]
        layer = nn.TransformerEncoderLayer(
            D, 2, 4 * D, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        )
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": b["attn.qkv.weight"],
                "self_attn.in_proj_bias": b["attn.qkv.bias"],
                "self_attn.out_proj.weight": one[:, None] * b["attn.proj.weight"],
                "self_attn.out_proj.bias": one * b["attn.proj.bias"],
                "linear1.weight": b["mlp.fc1.weight"],
                "linear1.bias": b["mlp.fc1.bias"],
                "linear2.weight": two[:, None] * b["mlp.fc2.weight"],
                "linear2.bias": two * b["mlp.fc2.bias"],
                "norm1.weight": b["norm1.weight"],
                "norm1.bias": b["norm1.bias"],
                "norm2.weight": b["norm2.weight"],
                "norm2.bias": b["norm2.bias"],
            }
        )
        with torch.no_grad():
            h = layer(h)
    return nn.functional.layer_norm(
        h[:, 0], (D,), state["norm.weight"], state["norm.bias"], 1e-6
    )


def test_the_transformer_is_torchs_with_scaled_layers(state):
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(transform(state, x), by_torch(state, x), rtol=1e-4, atol=1e-5)


def test_an_extractor_takes_small_images_and_grey_ones(state, tmp_path):
    path = tmp_path / "tiny.pth"
    torch.save(state, path)
    recipe = find_extractor("dinov2", "", weights=str(path), allow_weights=True)
    extractor = recipe.load("cpu")
    assert extractor.dim == D
    assert extractor.fingerprint.endswith("-tiny_pth")
    grey = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8)
    features = extractor(grey)
    assert features.pool.shape == (1, D) and features.logits is None
    assert torch.equal(features.pool, extractor(grey.expand(-1, 3, -1, -1)).pool)


def test_a_file_of_another_network_is_named_with_the_published_ones(state, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({k: v for k, v in state.items() if "fc2" not in k}, path)
    recipe = find_extractor("dinov2", "", weights=str(path), allow_weights=True)
    with pytest.raises(
        ValueError, match="other.pth does not hold a DINOv2.*fc2.*dinov2_vitl14"
    ):
        recipe.load("cpu")
