"""Augmentation: the mirrored image, ADA as EDM uses it, DiffAug, and jitter of rare classes.

It runs where images are decoded, on the CPU, a batch at a time and off the training thread, so
that what a network is shown has the same bits for every device, number of workers and batch.
The mirror alone, which is exact, is left to the device that the images go to.
Every random number is a function of (seed, purpose, number of the image in the run).

One core (AMD EPYC, shared with other work) does some 7,000 images of 32 px a second with ADA at
p = 0.12, 2,500 of 64 px, and 11,500 and 4,400 with DiffAug: medians of the CPU time of 30
interleaved batches of 64.

Shapes: n = images, C, H, W = image. Positions are pixel centres, x to the right, y down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from cbdm_scale.data.options import AugmentName, DataConfig
from cbdm_scale.diffusion import rng


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to the images of a run before noise is added to them."""

    name: AugmentName = "none"
    p: float = 0.12  # of each of ADA's transformations but the mirror
    flip: bool = False
    seed: int = 0
    jitter: tuple[float, ...] = ()  # probability of `jitter` by label; () is never

    @property
    def is_mirror_alone(self) -> bool:
        """Whether it does no more than mirror, which is left to the device."""
        return self.name == "none" and not self.jitter

    def __call__(
        self, x0: Tensor, sample_ids: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Images x0 (n, C, H, W) in [-1, 1] of sample_ids (n,), and ADA's nine numbers, (n, 9).
        Jitter needs their labels y (n,).

        ADA describes to the network what was done, the mirror included; the others do not.
        """
        mirrored = self.mirrored(sample_ids)
        x0 = flip_where(mirrored, x0, -1)
        if self.jitter:
            assert y is not None, "jitter depends on the class"
            x0 = transform(x0, draw_jitter(self.seed, sample_ids, torch.tensor(self.jitter)[y]))
        match self.name:
            case "ada":
                a = draw_ada(self.seed, sample_ids, self.p, mirrored)
                return transform(x0, a), augment_cond(a)
            case "diffaug":
                return diffaug(x0, rng.uniform(self.seed, "diffaug", sample_ids, 7)), None
            case "none":
                return x0, None

    def mirrored(self, sample_ids: Tensor) -> Tensor:
        """Which of sample_ids (n,) are flipped horizontally, (n,) bool."""
        if not self.flip:
            return torch.zeros(len(sample_ids), dtype=torch.bool)
        return rng.uniform(self.seed, "flip", sample_ids).squeeze(1) < 0.5


def augmentation(options: DataConfig, seed: int, counts: Sequence[int] = ()) -> Augmentation:
    """What ``options`` do to every image of a run with this seed; counts (K,) are those of
    the training set."""
    m = options.jitter_rare
    return Augmentation(
        name=options.augment,
        p=options.augment_p,
        flip=options.flip,
        seed=seed,
        jitter=tuple(m / (m + n) for n in counts) if m else (),
    )


def flip_where(chosen: Tensor, x: Tensor, axis: int) -> Tensor:
    """Mirror the images chosen (n,) bool along an axis, exactly."""
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(axis), x)


# ----------------------------------------------------------------------------
# ADA: the geometric pipeline of Karras et al., "Elucidating the Design Space of Diffusion-Based
# Generative Models" (NeurIPS 2022), Table 6.

STEP = 2**0.2
"""A_scale = A_aniso: what one standard deviation of scaling or stretching multiplies by."""

SHIFT = 1 / 8
"""A_trans: one standard deviation of the translation, in widths or heights of the image."""


def draw_ada(seed: int, sample_ids: Tensor, p: float, mirror: Tensor) -> Tensor:
    """Table 6's a_0 .. a_7 for sample_ids (n,): (n, 8) float64, 0 where not applied.

    a_0, a_1 mirror in x and y (0 or 1); a_2 logarithm of the scale; a_3 angle of the rotation;
    a_4, a_5 direction and logarithm of the stretch; a_6, a_7 shift in x and y.
    y-flip, scaling, rotation, stretch and shift are each applied with probability p. a_0 is
    ``mirror`` (n,), which has its own probability and is done to the image already.
    """
    coins = rng.uniform(seed, "ada/coins", sample_ids, 5) < p
    y_flip, scaled, turned, stretched, shifted = coins.unbind(1)
    upside_down, angle, direction = rng.uniform(seed, "ada/uniform", sample_ids, 3).unbind(1)
    normal = rng.normal(seed, "ada/normal", sample_ids, 4).double()
    size, stretch, x, y = normal.unbind(1)
    full_turn = 2 * torch.pi
    return torch.stack(
        [
            mirror.double(),
            y_flip * (upside_down < 0.5).double(),
            scaled * size,
            turned * (angle - 0.5) * full_turn,
            stretched * (direction - 0.5) * full_turn,
            stretched * stretch,
            shifted * x,
            shifted * y,
        ],
        dim=1,
    )


def augment_cond(a: Tensor) -> Tensor:
    """What the network is told of a (n, 8), in Table 6's order: (n, 9) float32, 0 for nothing.

    As published, they do not tell a stretch along a_4 from the inverse one along -a_4: a_5 has
    either sign, and a_4 all directions.
    """
    a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7 = a.unbind(1)
    turn = a_3.cos() - 1, a_3.sin()
    stretch = a_5 * a_4.cos(), a_5 * a_4.sin()
    return torch.stack([a_0, a_1, a_2, *turn, *stretch, a_6, a_7], dim=1).float()


def transform(x0: Tensor, a: Tensor) -> Tensor:
    """Apply all of a (n, 8) but the mirror in x to x0 (n, C, H, W) in [-1, 1].

    Flips are exact. An image with more than flips is resampled once, and clipped to [-1, 1],
    which resampling may overshoot; the others keep their bits.
    """
    x0 = flip_where(a[:, 1] == 1, x0, -2)
    rows = (a[:, 2:] != 0).any(1).nonzero().squeeze(1)
    if len(rows) == 0:
        return x0
    matrix, shift = content_map(a[rows], *x0.shape[2:])
    return x0.index_copy(0, rows, resample(x0[rows], matrix, shift).clamp(-1, 1))


def content_map(a: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where the content of an image goes, from its centre: matrix (n, 2, 2), shift (n, 2).

    After the flips the content is scaled by STEP ** a_2, turned by a_3 (counter-clockwise as
    seen), stretched along the direction a_4 by STEP ** a_5 (and across it by the inverse), and
    shifted by a_6 widths / 8 to the right and a_7 heights / 8 down.
    """
    _, _, a_2, a_3, a_4, a_5, a_6, a_7 = a.unbind(1)
    along = torch.stack([STEP**a_5, STEP**-a_5], dim=1).diag_embed()
    stretch = rotation(a_4) @ along @ rotation(-a_4)
    matrix = (STEP**a_2).view(-1, 1, 1) * (stretch @ rotation(a_3))
    return matrix, SHIFT * torch.stack([a_6 * width, a_7 * height], dim=1)


def rotation(angle: Tensor) -> Tensor:
    """Matrices (n, 2, 2) that turn (x, y) counter-clockwise as seen, y pointing down."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, s], -1), torch.stack([-s, c], -1)], dim=-2)


def resample(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Move the content of x (n, C, H, W) by matrix (n, 2, 2) and shift (n, 2) pixels.

    Outside, the image goes on mirrored at the centres of its outermost pixels. The image is
    made four times finer (`finer`) and read between these pixels linearly. Of a plane
    wave with 8, 4 and 2.5 pixels a period it gets at most 0.6, 2.1 and 5.5 % wrong (root mean
    square; plain bilinear 8, 29 and 69 %). Nothing is blurred where content shrinks.
    """
    height, width = x.shape[2:]
    rows, columns = finer(height), finer(width).T  # (4H - 3, H), (W, 4W - 3)
    half = torch.tensor([width - 1, height - 1], dtype=torch.float64) / 2
    xs = torch.arange(width, dtype=torch.float64) - half[0] - shift[:, :1]  # (n, W)
    ys = torch.arange(height, dtype=torch.float64) - half[1] - shift[:, 1:]  # (n, H)
    back = torch.linalg.inv(matrix)[:, None, None]  # (n, 1, 1, 2, 2)
    source = back[..., 0] * xs[:, None, :, None] + back[..., 1] * ys[:, :, None, None]
    grid = (source / half).to(x.dtype)  # (n, H, W, 2), in halves of the image
    moved = torch.empty_like(x)
    # One image at a time: products of one shape, so that no batch changes their rounding.
    for i in range(len(x)):
        fine = torch.matmul(rows, x[i].clone() @ columns)  # (C, 4H - 3, 4W - 3)
        moved[i] = F.grid_sample(
            fine[None],
            grid[i : i + 1],
            mode="bilinear",
            padding_mode="reflection",
            align_corners=True,
        )
    return moved


LOBES = 6
"""Pixels on each side that an interpolated one is made of."""


@lru_cache(maxsize=8)
def finer(size: int) -> Tensor:
    """A line of pixels made four times finer, in two steps: (4 size - 3, size) float32."""
    return (refinement(2 * size - 1) @ refinement(size)).float()


def refinement(size: int) -> Tensor:
    """Put a pixel between any two neighbours of a line: (2 size - 1, size) float64.

    Interpolates with Lanczos' window, sinc(u) sinc(u / 6), normalised; the old pixels stay.
    """
    if size < LOBES:
        raise ValueError(
            f"data.augment (ada) and data.jitter_rare need images of at least {LOBES} pixels a "
            f"side, got {size}. Try --data.augment none --data.jitter-rare 0."
        )
    u = torch.arange(0.5, LOBES, dtype=torch.float64)
    taps = torch.sinc(u) * torch.sinc(u / LOBES)
    taps = torch.cat([taps.flip(0), taps]) / (2 * taps.sum())  # (12,)
    pixels = torch.eye(size, dtype=torch.float64)
    wide = F.pad(pixels, (LOBES - 1, LOBES - 1), mode="reflect")  # mirrored at the ends
    between = wide.unfold(1, 2 * LOBES, 1) @ taps  # (size, size - 1)
    both = torch.stack([pixels[:, :-1], between], dim=-1).flatten(1)  # (size, 2 size - 2)
    return torch.cat([both, pixels[:, -1:]], dim=1).T


# ----------------------------------------------------------------------------
# Jitter of rare classes: a class of two images has two positions, which a network learns by
# heart. It is given the positions between, as if the class had ``data.jitter_rare`` more.

JITTER_SHIFT = 0.5
"""One standard deviation, in units of ``SHIFT``: a sixteenth of the width or height."""
JITTER_SIZE = 0.3
"""One standard deviation, as a power of ``STEP``, of the scale and the stretch: some 4 %."""


def draw_jitter(seed: int, sample_ids: Tensor, p: Tensor) -> Tensor:
    """a_0 .. a_7 of small shifts, scales and stretches for sample_ids (n,), each with its
    probability p (n,): (n, 8) float64, as ``draw_ada``'s, without mirror and rotation."""
    coin, direction = rng.uniform(seed, "jitter/uniform", sample_ids, 2).unbind(1)
    normal = rng.normal(seed, "jitter/normal", sample_ids, 4).double()
    size, stretch, x, y = (normal * (coin < p).unsqueeze(1)).unbind(1)
    none, angle = torch.zeros_like(size), (direction - 0.5) * 2 * torch.pi
    size, stretch = JITTER_SIZE * size, JITTER_SIZE * stretch
    angle = torch.where(stretch == 0, none, angle.double())
    shift = JITTER_SHIFT * x, JITTER_SHIFT * y
    return torch.stack([none, none, size, none, angle, stretch, *shift], dim=1)


# ----------------------------------------------------------------------------
# DiffAug: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training" (NeurIPS
# 2020), Section 4: colour, translation and cutout, each on every image.


def diffaug(x0: Tensor, u: Tensor) -> Tensor:
    """Colour, translation and cutout of x0 (n, C, H, W) by u (n, 7) uniform in (0, 1).

    Brightness is shifted by up to 0.5 (in units of [-1, 1]), saturation scaled by 0 to 2,
    contrast by 1/2 to 3/2; the image moves by whole pixels, up to 1/8 of its size, either way;
    a square of half its size, which may stand over the edge, is cut out. What is left empty is
    0, the middle grey. Nothing is clipped: colours may leave [-1, 1].
    """
    height, width = x0.shape[2:]
    x = change_colour(x0, u[:, :3])
    rows, columns = sources(u[:, 3], height), sources(u[:, 4], width)  # (n, H), (n, W)
    image = torch.arange(len(x)).view(-1, 1, 1)
    row = rows.clamp(0, height - 1).unsqueeze(2)
    column = columns.clamp(0, width - 1).unsqueeze(1)
    x = x.movedim(1, -1)[image, row, column].movedim(-1, 1).contiguous()

    from_image = outer(rows == row.squeeze(2), columns == column.squeeze(1))
    hole = outer(cut_out(u[:, 5], height), cut_out(u[:, 6], width))
    return torch.where(from_image & ~hole, x, 0.0)


def change_colour(x: Tensor, u: Tensor) -> Tensor:
    """Brightness, saturation and contrast, in this order, by u (n, 3) in (0, 1)."""
    brightness, saturation, contrast = u.to(x.dtype).T.reshape(3, -1, 1, 1, 1)
    x = x + (brightness - 0.5)
    grey = x.double().mean(1, keepdim=True).to(x.dtype)  # (n, 1, H, W)
    x = grey + 2 * saturation * (x - grey)
    level = x.double().mean((1, 2, 3), keepdim=True).to(x.dtype)  # (n, 1, 1, 1)
    out: Tensor = level + (contrast + 0.5) * (x - level)
    return out


def sources(u: Tensor, size: int) -> Tensor:
    """Where the pixels of a moved axis come from, outside it too: u (n,) -> (n, size)."""
    most = round(size / 8)
    step = (u * (2 * most + 1)).long() - most  # -most .. most, alike
    return torch.arange(size) - step.unsqueeze(1)


def cut_out(u: Tensor, size: int) -> Tensor:
    """The pixels of an axis that half its size around a random one covers: (n, size) bool."""
    side = (size + 1) // 2
    first = (u * (size + 1 - side % 2)).long().unsqueeze(1) - side // 2
    at = torch.arange(size)
    return (first <= at) & (at < first + side)


def outer(rows: Tensor, columns: Tensor) -> Tensor:
    """Both: (n, H) and (n, W) bool -> (n, 1, H, W)."""
    return torch.logical_and(rows.unsqueeze(2), columns.unsqueeze(1)).unsqueeze(1)
