"""DiffAug against a loop over pixels.

Shapes: n = images, C, H, W = image. x to the right, y down.
"""

import math

import pytest
import torch

from cbdm_scale.data.augment import diffaug


def noise(n, channels, height, width):
    rng = torch.Generator().manual_seed(3)
    return torch.rand((n, channels, height, width), generator=rng) * 2 - 1


def slow_diffaug(x, u):
    """One pixel at a time."""
    channels, height, width = x.shape
    x = x.double() + (u[0] - 0.5)
    for i in range(height):
        for j in range(width):
            grey = sum(x[c, i, j].item() for c in range(channels)) / channels
            for c in range(channels):
                x[c, i, j] = (x[c, i, j] - grey) * (2 * u[1]) + grey
    level = x.mean().item()
    x = (x - level) * (0.5 + u[2]) + level
    out = torch.zeros_like(x)
    most = {height: round(height / 8), width: round(width / 8)}
    down = int(u[3] * (2 * most[height] + 1)) - most[height]
    right = int(u[4] * (2 * most[width] + 1)) - most[width]
    sides = [math.ceil(size / 2) for size in (height, width)]
    top = int(u[5] * (height + 1 - sides[0] % 2)) - sides[0] // 2
    left = int(u[6] * (width + 1 - sides[1] % 2)) - sides[1] // 2
    for i in range(height):
        for j in range(width):
            cut = 0 <= i - top < sides[0] and 0 <= j - left < sides[1]
            if 0 <= i - down < height and 0 <= j - right < width and not cut:
                out[:, i, j] = x[:, i - down, j - right]
    return out


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 8), (3, 9, 12)])
def test_diffaug_is_the_slow_reference(shape):
    x0 = noise(12, *shape)
    u = torch.rand((12, 7), generator=torch.Generator().manual_seed(2)).double()
    out = diffaug(x0, u)
    for x, found, numbers in zip(x0, out, u.tolist(), strict=True):
        torch.testing.assert_close(found.double(), slow_diffaug(x, numbers), atol=1e-6, rtol=0)


def test_diffaug_moves_and_cuts_as_far_as_its_paper_says():
    """White images: what is dark was moved in or cut out."""
    u = torch.full((2000, 7), 0.5).double()
    u[:, 3:] = torch.rand((2000, 4), generator=torch.Generator().manual_seed(2)).double()
    dark = diffaug(torch.ones(2000, 1, 32, 32), u)[:, 0] == 0
    hole = 16 * 16
    assert dark.flatten(1).sum(1).min() == 8 * 8  # a corner of the hole, nothing moved
    assert dark.flatten(1).sum(1).max() > hole
    for axis in (1, 2):
        edge = dark.all(3 - axis).double().mean(0)  # lines that are dark as a whole
        assert edge[4:28].max() == 0
        assert edge[:4].tolist() == pytest.approx([4 / 9, 3 / 9, 2 / 9, 1 / 9], abs=0.05)


def test_numbers_in_the_middle_leave_colours_and_place():
    """Outside the hole, which is always there."""
    x0 = noise(4, 3, 32, 32)
    out = diffaug(x0, torch.full((4, 7), 0.5).double())
    hole = torch.zeros(32, 32, dtype=torch.bool)
    hole[8:24, 8:24] = True
    torch.testing.assert_close(out[..., ~hole], x0[..., ~hole], rtol=0, atol=1e-6)
    assert not out[..., hole].any()
