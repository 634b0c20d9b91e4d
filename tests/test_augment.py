"""ADA against a slow, obvious reference; what follows the image, and what is told of it.

Shapes: n = images, C, H, W = image. x to the right, y down.
"""

import math
from dataclasses import replace

import pytest
import torch

from cbdm_scale.data.augment import (
    Augmentation,
    augment_cond,
    content_map,
    draw_ada,
    resample,
    rotation,
    transform,
)
from cbdm_scale.models.embeddings import NUM_AUGMENT


def noise(n, channels=3, height=32, width=32):
    rng = torch.Generator().manual_seed(3)
    return torch.rand((n, channels, height, width), generator=rng) * 2 - 1


def table_6(**values):
    """a_0 .. a_7 of one image, (1, 8) float64: those named, and zeros."""
    return torch.tensor([[values.get(f"a{i}", 0.0) for i in range(8)]], dtype=torch.float64)


# ----------------------------------------------------------------------------
# ADA's geometry against a loop over pixels, in double precision.


def fold(i, size):
    """The pixel that stands at position i, on a line mirrored at its outermost pixels."""
    i %= 2 * (size - 1)
    return min(i, 2 * (size - 1) - i)


def lanczos_between(value):
    """Half way between value(0) and value(1), by twelve neighbours."""

    def sinc(u):
        return math.sin(math.pi * u) / (math.pi * u)

    taps = [sinc(k + 0.5) * sinc((k + 0.5) / 6) for k in range(6)]
    total = 2 * sum(taps)
    return sum(tap / total * (value(-k) + value(1 + k)) for k, tap in enumerate(taps))


def line_weights(u, size):
    """What each pixel of a line of ``size`` adds to the value at position u."""

    def at(step, level):
        """At step / 2 ** level: a pixel, or half way between two of the level above."""
        if step % 2 == 0 and level > 0:
            return at(step // 2, level - 1)
        if level == 0:
            return torch.eye(size, dtype=torch.float64)[fold(step, size)]
        return lanczos_between(lambda k: at(step // 2 + k, level - 1))

    step = math.floor(4 * u)
    return (1 - (4 * u - step)) * at(step, 2) + (4 * u - step) * at(step + 1, 2)


def slow_ada(x, a):
    """For every pixel of the result: undo one transformation after the other, then look."""
    _, height, width = x.shape
    out = torch.zeros(x.shape, dtype=torch.float64)

    def turn(x, y, angle):  # counter-clockwise as seen
        return (
            math.cos(angle) * x + math.sin(angle) * y,
            -math.sin(angle) * x + math.cos(angle) * y,
        )

    for row in range(height):
        for column in range(width):
            px, py = column - (width - 1) / 2, row - (height - 1) / 2
            px, py = px - a[6] * width / 8, py - a[7] * height / 8
            px, py = turn(px, py, -a[4])
            px, py = px / 2 ** (0.2 * a[5]), py * 2 ** (0.2 * a[5])
            px, py = turn(px, py, a[4])
            px, py = turn(px, py, -a[3])
            px, py = px / 2 ** (0.2 * a[2]), py / 2 ** (0.2 * a[2])
            px, py = px, -py if a[1] else py
            px, py = -px if a[0] else px, py
            across = line_weights(px + (width - 1) / 2, width)
            down = line_weights(py + (height - 1) / 2, height)
            out[:, row, column] = torch.einsum("chw,h,w->c", x.double(), down, across)
    return out.clamp(-1, 1)


def test_ada_is_the_slow_reference():
    """All transformations at once, on images that are not square."""
    x0, images = noise(5, 2, 7, 9), torch.arange(5)
    augmentation = Augmentation(name="ada", p=1.0, flip=True, seed=1)
    out, numbers = augmentation(x0, images)
    a = draw_ada(1, images, 1.0, numbers[:, 0] == 1)
    assert a[:, 0].unique().tolist() == a[:, 1].unique().tolist() == [0, 1]
    for x, found, numbers in zip(x0, out, a.tolist(), strict=True):
        torch.testing.assert_close(found.double(), slow_ada(x, numbers), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("period", "error"), [(8, 0.006), (4, 0.021), (2.5, 0.055)])
def test_a_moved_wave_is_as_exact_as_the_docstring_says(period, error):
    at = torch.arange(64.0)
    for direction, angle, shift in ((0.2, 0.3, 0.3), (1.2, 1.1, 0.5), (0.0, 0.0, 0.5)):
        wave = 2 * math.pi / period
        kx, ky = wave * math.cos(direction), wave * math.sin(direction)
        x = torch.cos(kx * at + ky * at[:, None])[None, None]
        matrix, move = rotation(torch.tensor([angle]).double()), torch.tensor([[shift, 0.0]])
        out = resample(x, matrix, move.double())[0, 0]
        px, py = at - 31.5 - shift, (at - 31.5)[:, None]
        c, s = math.cos(angle), math.sin(angle)
        sx, sy = c * px - s * py + 31.5, s * px + c * py + 31.5
        inside = (sx.sub(31.5).abs() < 20) & (sy.sub(31.5).abs() < 20)
        wrong = (out - torch.cos(kx * sx + ky * sy))[inside]
        assert wrong.square().mean().sqrt() < error * math.sqrt(0.5)


def test_an_image_without_transformation_keeps_its_bits():
    x0, images = noise(40), torch.arange(40)
    out, numbers = Augmentation(name="ada", p=0.0)(x0, images)
    assert torch.equal(out, x0) and not numbers.any()
    out, numbers = Augmentation(name="ada", p=0.12)(x0, images)
    alone = ~numbers.any(1)
    assert 10 < alone.sum() < 35
    assert torch.equal(out[alone], x0[alone])
    assert all(not torch.equal(x, y) for x, y in zip(out[~alone], x0[~alone], strict=True))


def test_flips_and_quarter_turns_are_exact():
    x = noise(1)
    assert torch.equal(transform(x, table_6(a1=1)), x.flip(-2))
    for quarters in (-1, 1, 2):
        out = transform(x, table_6(a3=quarters * math.pi / 2))
        expected = torch.rot90(x, quarters, (-2, -1))  # counter-clockwise as seen
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


def test_content_moves_right_and_down_by_eighths_of_the_image():
    x = noise(1)
    right = transform(x, table_6(a6=0.75))  # 3 of 32 pixels
    torch.testing.assert_close(right[..., 3:], x[..., :-3], rtol=0, atol=1e-5)
    torch.testing.assert_close(right[..., :3], x[..., 1:4].flip(-1), rtol=0, atol=1e-5)
    down = transform(x, table_6(a7=-0.5))
    torch.testing.assert_close(down[..., :-2, :], x[..., 2:, :], rtol=0, atol=1e-5)


def test_content_grows_with_a_2_and_stretches_along_a_4():
    x = noise(1, height=33, width=33)
    twice = transform(x, table_6(a2=5.0))  # 2 ** (5 / 5)
    torch.testing.assert_close(twice[..., ::2, ::2], x[..., 8:25, 8:25], rtol=0, atol=1e-5)
    wide = transform(x, table_6(a5=5.0))[..., 12:21, ::2]  # twice as wide, half as high
    torch.testing.assert_close(wide, x[..., 8:25:2, 8:25], rtol=0, atol=1e-5)
    high = transform(x, table_6(a4=math.pi / 2, a5=5.0))[..., ::2, 12:21]
    torch.testing.assert_close(high, x[..., 8:25, 8:25:2], rtol=0, atol=1e-5)


def test_a_stretch_keeps_areas_and_a_direction_alone_does_nothing():
    a = draw_ada(0, torch.arange(50), 1.0, torch.zeros(50))
    matrix, _ = content_map(a, 8, 8)
    torch.testing.assert_close(torch.linalg.det(matrix), 2 ** (0.4 * a[:, 2]))
    x = noise(1)
    torch.testing.assert_close(transform(x, table_6(a4=1.0)), x, rtol=0, atol=1e-5)


def test_images_too_small_for_the_resampling_are_refused():
    with pytest.raises(ValueError, match=r"data.augment \(ada\).*6 pixels.*got 4. Try.*none"):
        transform(noise(1, 1, 4, 4), table_6(a2=1.0))


# ----------------------------------------------------------------------------
# ADA's random numbers, and what the network is told of them.


def test_the_network_is_told_table_6s_nine_numbers():
    a = torch.tensor([[1, 0, 0.5, math.pi / 2, math.pi / 6, 2, -0.25, 0.75]]).double()
    expected = torch.tensor([[1, 0, 0.5, -1, 1, 3**0.5, 1, -0.25, 0.75]])
    torch.testing.assert_close(augment_cond(a), expected)
    assert augment_cond(a).shape == (1, NUM_AUGMENT)
    assert not augment_cond(torch.zeros(1, 8).double()).any()


def test_each_transformation_comes_with_its_probability_and_its_law():
    n, p = 40_000, 0.12
    a = draw_ada(7, torch.arange(n), p, torch.arange(n) % 2 == 0)
    sigmas = 5 * math.sqrt(p / n)
    applied = a != 0
    shares = applied.double().mean(0)
    assert shares[0] == 0.5
    for i, share in ((1, p / 2), (2, p), (3, p), (4, p), (5, p), (6, p), (7, p)):
        assert abs(shares[i] - share) < sigmas, i
    assert torch.equal(applied[:, 4], applied[:, 5]) and torch.equal(
        applied[:, 6], applied[:, 7]
    )
    both = (applied[:, 2] & applied[:, 3]).double().mean()
    assert abs(both - p * p) < sigmas
    for i in (2, 5, 6, 7):  # standard normal
        values = a[applied[:, i], i]
        assert abs(values.mean()) < 0.08 and abs(values.std() - 1) < 0.06
    for i in (3, 4):  # uniform over a turn
        values = a[applied[:, i], i]
        assert values.abs().max() < math.pi
        assert abs(values.mean()) < 0.15 and abs(values.std() - math.pi / 3**0.5) < 0.08


def test_no_number_of_ada_tells_another():
    a = draw_ada(7, torch.arange(20_000), 1.0, torch.arange(20_000) % 2 == 0)
    related = torch.corrcoef(torch.cat([a, a[:, 2:].square()], dim=1).T)  # 8 and 6 squares
    assert (related - torch.eye(14)).abs().max() < 0.06


def test_ada_mirrors_the_images_that_are_mirrored_without_it():
    x0, images = noise(60), torch.arange(1000, 1060)
    plain, nothing = Augmentation(flip=True, seed=4)(x0, images)
    out, numbers = Augmentation(name="ada", p=0.0, flip=True, seed=4)(x0, images)
    assert nothing is None and torch.equal(out, plain)
    mirrored = torch.tensor([not torch.equal(x, y) for x, y in zip(plain, x0, strict=True)])
    assert torch.equal(numbers[:, 0] == 1, mirrored) and not numbers[:, 1:].any()
    assert not Augmentation(name="ada", p=1.0)(x0, images)[1][:, 0].any()


@pytest.mark.parametrize("name", ["ada", "diffaug"])
def test_augmentation_follows_the_image_bit_for_bit(name):
    """In any company, and never the one before."""
    x0, images = noise(64), torch.arange(64) * 977
    augmentation = Augmentation(name=name, p=0.4, flip=True, seed=9)
    whole, numbers = augmentation(x0, images)
    for rows in (torch.arange(0, 64, 3), torch.tensor([5]), torch.tensor([40, 2, 17])):
        part, told = augmentation(x0[rows], images[rows])
        assert torch.equal(part, whole[rows])
        assert told is None if name == "diffaug" else torch.equal(told, numbers[rows])
    assert not torch.equal(augmentation(x0, images + 1)[0], whole)
    assert not torch.equal(replace(augmentation, seed=10)(x0, images)[0], whole)
