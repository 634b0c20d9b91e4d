"""Jitter of rare classes: how often by class, how far, and that it follows the image.

Shapes: n = images, C, H, W = image, K = classes.
"""

import pytest
import torch

from cbdm_scale.data.augment import (
    SHIFT,
    STEP,
    Augmentation,
    augmentation,
    content_map,
    draw_jitter,
)
from cbdm_scale.data.options import DataConfig

COUNTS = (90, 10, 2)


def noise(n, size=8):
    rng = torch.Generator().manual_seed(3)
    return torch.rand((n, 1, size, size), generator=rng) * 2 - 1


def moved(x, out):
    return (x != out).flatten(1).any(1)


def test_a_class_of_n_is_moved_with_probability_m_by_m_plus_n():
    jitter = augmentation(DataConfig(flip=False, jitter_rare=10.0), 1, COUNTS)
    assert jitter.jitter == (0.1, 0.5, 10 / 12)
    n = 3_000
    x, y = noise(n, 6), torch.arange(n) % 3
    out, told = jitter(x, torch.arange(n), y)
    assert told is None
    share = [moved(x, out)[y == c].double().mean().item() for c in range(3)]
    assert share == pytest.approx(jitter.jitter, abs=0.04)  # four standard deviations
    assert out.min() >= -1 and out.max() <= 1


def test_the_moves_are_small_and_have_no_direction():
    n = 20_000
    a = draw_jitter(2, torch.arange(n), torch.ones(n))
    matrix, shift = content_map(a, 16, 32)
    assert shift.std(0).tolist() == pytest.approx([32 / 16, 16 / 16], rel=0.03)
    assert shift.mean(0).abs().max() < 0.06
    assert not a[:, [0, 1, 3]].any()  # neither mirror nor rotation: a 6 stays a 6
    area = torch.linalg.det(matrix).log() / torch.tensor(STEP).log() / 2
    assert area.std().item() == pytest.approx(0.3, rel=0.03)
    assert SHIFT / 2 == 1 / 16


def test_what_is_done_follows_the_image():
    jitter = Augmentation(jitter=(0.2, 0.9), seed=5)
    images, y = torch.arange(40, 80), torch.arange(40) % 2
    whole, _ = jitter(noise(40), images, y)
    rows = torch.tensor([31, 2, 17])
    part, _ = jitter(noise(40)[rows], images[rows], y[rows])
    assert torch.equal(part, whole[rows])
    assert not torch.equal(jitter(noise(40), images + 1, y)[0], whole)


def test_it_comes_before_ada_of_which_the_network_is_told():
    images, y = torch.arange(12), torch.ones(12, dtype=torch.int64)
    ada = Augmentation(name="ada", p=0.5, seed=5)
    both = Augmentation(name="ada", p=0.5, seed=5, jitter=(0.0, 1.0))
    x = noise(12)
    jittered, _ = Augmentation(seed=5, jitter=(0.0, 1.0))(x, images, y)
    out, told = both(x, images, y)
    expected, same = ada(jittered, images)
    assert torch.equal(out, expected) and torch.equal(told, same)


def test_without_it_nothing_changes():
    assert augmentation(DataConfig(), 1, COUNTS).is_mirror_alone
    x, images = noise(9), torch.arange(9)
    out, _ = Augmentation(jitter=(0.0, 0.0), seed=1)(x, images, images % 2)
    assert torch.equal(out, x)


def test_images_too_small_are_refused_with_the_option():
    with pytest.raises(ValueError, match="data.jitter_rare need images of at least 6 pixels"):
        Augmentation(jitter=(1.0,))(noise(4, 5), torch.arange(4), torch.zeros(4).long())
