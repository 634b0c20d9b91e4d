"""The resize rules against their references: PIL, torch-fidelity, the formula."""

import numpy as np
import pytest
import torch
from PIL import Image

from cbdm_scale.metrics.resize import resize, to_network


def levels(n=2, size=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=g, dtype=torch.uint8)


def by_pil(image, side):
    """Channel by channel in float, clipped: what clean-fid computes. (C, H, W)"""
    channels = [Image.fromarray(c.numpy().astype(np.float32)) for c in image]
    new = [np.asarray(c.resize((side, side), Image.Resampling.BICUBIC)) for c in channels]
    return torch.from_numpy(np.stack(new).clip(0, 255))


@pytest.mark.parametrize(("size", "side"), [(32, 299), (64, 299), (64, 20)])
def test_bicubic_is_pils_also_where_it_antialiases(size, side):
    images = levels(size=size)
    expected = torch.stack([by_pil(image, side) for image in images])
    torch.testing.assert_close(resize(images, side, "bicubic"), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("side", [75, 20])
def test_bicubic_agrees_with_pils_bytes_to_one_level(side):
    """Where nothing overshoots: PIL clips its bytes between the two directions too."""
    i = torch.arange(32)
    smooth = 128 + 90 * torch.sin(i / 5) * torch.cos(i[:, None] / 4)
    image = smooth.round().to(torch.uint8).expand(3, 32, 32)
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    expected = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC), np.int64)
    found = resize(image[None], side, "bicubic")[0].round().permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1


def naive(image, side, centre):
    """Bilinear by the formula: where output pixel i stands, and its neighbours' shares."""
    old = image.shape[-1]
    rows = []
    for i in range(side):
        place = (i + 0.5) * old / side - 0.5 if centre else i * old / side
        place = min(max(place, 0), old - 1)
        low = int(place)
        row = torch.zeros(old)
        row[low] += 1 - (place - low)
        row[min(low + 1, old - 1)] += place - low
        rows.append(row)
    weights = torch.stack(rows)  # (side, old)
    return weights @ image.float() @ weights.T


@pytest.mark.parametrize(("rule", "centre"), [("bilinear", True), ("tf1", False)])
@pytest.mark.parametrize("side", [75, 20])
def test_bilinear_rules_follow_their_formula(rule, centre, side):
    images = levels()
    expected = torch.stack([naive(image, side, centre) for image in images])
    torch.testing.assert_close(resize(images, side, rule), expected, atol=2e-3, rtol=0)


def test_the_rules_differ_by_whole_levels():
    """Or choosing between them would not matter."""
    found = [resize(levels(), 75, rule) for rule in ("bilinear", "tf1", "bicubic")]
    for i in range(3):
        assert (found[i] - found[i - 1]).abs().mean() > 1


@pytest.mark.parametrize("rule", ["bilinear", "tf1", "bicubic"])
def test_the_right_size_is_left_alone_under_every_rule(rule):
    assert torch.equal(resize(levels(), 32, rule), levels().float())


def test_ranges_are_those_of_each_rule():
    ends = torch.tensor([0.0, 255.0])
    assert to_network(ends, "bilinear").tolist() == [-1, 1]
    assert to_network(ends, "tf1").tolist() == to_network(ends, "bicubic").tolist()
    assert to_network(ends, "tf1").tolist() == [-1, 127 / 128]


def test_an_unknown_rule_is_named_with_the_known_ones():
    message = "eval.resize must be bilinear, tf1 or bicubic, got 'area'. Try bilinear"
    with pytest.raises(ValueError, match=message):
        resize(levels(), 75, "area")
