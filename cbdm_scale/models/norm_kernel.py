"""Group normalisation and SiLU of images in channels_last as one kernel each way (Triton).

torch's kernel wants the channels first: around it each image changes its layout twice. Here a
program owns one image and a block of whole groups, whose channels lie side by side, and walks
over the pixels: once for the statistics, by Welford's method in float32, and once for the
result. There are no atomic additions, so the same input gives the same bits.

Shapes: N = batch, C = channels, P = H W pixels, G = groups; memory is (N, P, C).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 4096
"""Numbers that a program holds at a time: pixels times channels."""
CHANNELS = 64
"""Channels of a program, where there are images enough to fill the GPU; a row of memory."""
PROGRAMS = 512
"""Fewer programs than this leave parts of a GPU idle: then they get fewer channels."""


@triton.jit  # type: ignore[untyped-decorator]
def _channels(block, channels, SIZE: tl.constexpr, PADDED: tl.constexpr, GROUPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Group, channel and whether it is one, of every column of a block of whole groups."""
    column = tl.arange(0, GROUPS * PADDED)
    if SIZE == PADDED:  # channels without a gap: the widest loads
        channel = block * (GROUPS * PADDED) + column
        group = channel // SIZE
        inside = channel < channels
    else:
        group = block * GROUPS + column // PADDED
        channel = group * SIZE + column % PADDED
        inside = (column % PADDED < SIZE) & (channel < channels)
    return group, channel, inside


@triton.jit  # type: ignore[untyped-decorator]
def _of_group(values, PADDED: tl.constexpr, GROUPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The sum over each group, at every one of its columns."""
    total = tl.sum(tl.reshape(values, [GROUPS, PADDED]), 1)
    return tl.reshape(tl.broadcast_to(total[:, None], [GROUPS, PADDED]), [GROUPS * PADDED])


@triton.jit  # type: ignore[untyped-decorator]
def _through_silu(dy, z, SILU: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gradient before SiLU of the gradient behind it."""
    if SILU:
        s = tl.sigmoid(z)
        dy = dy * s * (1 + z * (1 - s))
    return dy


@triton.jit  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def]
    x,
    shift,
    y,
    weight,
    bias,
    mean,
    rstd,
    pixels,
    channels,
    groups,
    eps,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    SILU: tl.constexpr,
    SHIFTED: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    group, channel, inside = _channels(tl.program_id(1), channels, SIZE, PADDED, GROUPS)
    start = image * pixels * channels
    count = 0.0
    m = tl.zeros([GROUPS * PADDED], tl.float32)  # mean of a channel
    m2 = tl.zeros([GROUPS * PADDED], tl.float32)  # sum of its squared distances from it
    for first in range(0, pixels, ROWS):
        row = first + tl.arange(0, ROWS)
        there = (row < pixels)[:, None] & inside[None, :]
        at = start + row[:, None] * channels + channel[None, :]
        v = tl.load(x + at, there, 0.0).to(tl.float32)
        here = tl.minimum(pixels - first, ROWS) * 1.0
        tile_mean = tl.sum(v, 0) / here
        away = tl.where(there, v - tile_mean[None, :], 0.0)
        delta = tile_mean - m
        total = count + here
        m += delta * (here / total)
        m2 += tl.sum(away * away, 0) + delta * delta * (count * here / total)
        count = total
    s = tl.zeros([GROUPS * PADDED], tl.float32)
    if SHIFTED:
        s = tl.load(shift + image * channels + channel, inside, 0.0)
    m += s
    mu = _of_group(m, PADDED, GROUPS) / SIZE
    apart = tl.where(inside, m - mu, 0.0)
    var = _of_group(m2 + count * apart * apart, PADDED, GROUPS) / (count * SIZE)
    r = 1 / tl.sqrt(var + eps)
    own = inside & (channel == group * SIZE)  # a group's first channel writes
    tl.store(mean + image * groups + group, mu, own)
    tl.store(rstd + image * groups + group, r, own)

    w = tl.load(weight + channel, inside, 0.0).to(tl.float32) * r
    b = tl.load(bias + channel, inside, 0.0).to(tl.float32)
    for first in range(0, pixels, ROWS):
        row = first + tl.arange(0, ROWS)
        there = (row < pixels)[:, None] & inside[None, :]
        at = start + row[:, None] * channels + channel[None, :]
        v = tl.load(x + at, there, 0.0).to(tl.float32)
        z = (v - (mu - s)[None, :]) * w[None, :] + b[None, :]
        if SILU:
            z = z * tl.sigmoid(z)
        tl.store(y + at, z.to(y.dtype.element_ty), there)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    x,
    shift,
    dy,
    dx,
    weight,
    bias,
    mean,
    rstd,
    dweight,
    dbias,
    dshift,
    pixels,
    channels,
    groups,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    SILU: tl.constexpr,
    SHIFTED: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    group, channel, inside = _channels(tl.program_id(1), channels, SIZE, PADDED, GROUPS)
    start = image * pixels * channels
    mu = tl.load(mean + image * groups + group, inside, 0.0)
    if SHIFTED:
        mu -= tl.load(shift + image * channels + channel, inside, 0.0)
    r = tl.load(rstd + image * groups + group, inside, 0.0)
    w = tl.load(weight + channel, inside, 0.0).to(tl.float32)
    b = tl.load(bias + channel, inside, 0.0).to(tl.float32)
    dw = tl.zeros([GROUPS * PADDED], tl.float32)
    db = tl.zeros([GROUPS * PADDED], tl.float32)
    for first in range(0, pixels, ROWS):
        row = first + tl.arange(0, ROWS)
        there = (row < pixels)[:, None] & inside[None, :]
        at = start + row[:, None] * channels + channel[None, :]
        v = tl.load(x + at, there, 0.0).to(tl.float32)
        h = (v - mu[None, :]) * r[None, :]
        d = tl.load(dy + at, there, 0.0).to(tl.float32)
        d = _through_silu(d, h * w[None, :] + b[None, :], SILU)
        dw += tl.sum(d * h, 0)
        db += tl.sum(d, 0)
    tl.store(dweight + image * channels + channel, dw, inside)
    tl.store(dbias + image * channels + channel, db, inside)

    size = pixels * SIZE * 1.0
    along = _of_group(w * dw, PADDED, GROUPS) / size
    level = _of_group(w * db, PADDED, GROUPS) / size
    ds = tl.zeros([GROUPS * PADDED], tl.float32)
    for first in range(0, pixels, ROWS):
        row = first + tl.arange(0, ROWS)
        there = (row < pixels)[:, None] & inside[None, :]
        at = start + row[:, None] * channels + channel[None, :]
        v = tl.load(x + at, there, 0.0).to(tl.float32)
        h = (v - mu[None, :]) * r[None, :]
        d = tl.load(dy + at, there, 0.0).to(tl.float32)
        d = _through_silu(d, h * w[None, :] + b[None, :], SILU)
        d = (d * w[None, :] - level[None, :] - h * along[None, :]) * r[None, :]
        tl.store(dx + at, d.to(dx.dtype.element_ty), there)
        ds += tl.sum(tl.where(there, d, 0.0), 0)
    if SHIFTED:
        tl.store(dshift + image * channels + channel, ds, inside)


def _launch(
    kernel: Any, x: Tensor, groups: int, given: tuple[Any, ...], **switches: bool
) -> None:
    n, channels = x.shape[:2]
    pixels, size = x.shape[2] * x.shape[3], channels // groups
    padded = triton.next_power_of_2(size)
    wide = CHANNELS
    while wide > 16 and n * channels < PROGRAMS * wide:
        wide //= 2
    block = max(1, wide // padded)
    options = {
        "SIZE": size,
        "PADDED": padded,
        "GROUPS": block,
        "ROWS": min(triton.next_power_of_2(pixels), max(1, TILE // (block * padded))),
        "num_warps": 8,
        **switches,
    }
    with torch.cuda.device_of(x):
        kernel[n, triton.cdiv(groups, block)](*given, **options)


class _GroupNorm(torch.autograd.Function):
    """Saves the images as they came and two numbers a group; SiLU is computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        silu: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        n, channels = x.shape[:2]
        y = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
        mean, rstd = weight.new_empty(2, n, groups)
        sizes = x.shape[2] * x.shape[3], channels, groups
        given = x, x if shift is None else shift, y, weight, bias, mean, rstd, *sizes, eps
        _launch(_forward, x, groups, given, SILU=silu, SHIFTED=shift is not None)
        ctx.save_for_backward(x, shift, weight, bias, mean, rstd)
        ctx.groups, ctx.silu = groups, silu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, weight, bias, mean, rstd = ctx.saved_tensors
        n, channels = x.shape[:2]
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x, memory_format=torch.channels_last)
        shares = weight.new_empty(2, n, channels)
        dshift = None if shift is None else torch.empty_like(shift)
        sizes = x.shape[2] * x.shape[3], channels, ctx.groups
        if shift is None:
            given = x, x, dy, dx, weight, bias, mean, rstd, *shares, x, *sizes
        else:
            given = x, shift, dy, dx, weight, bias, mean, rstd, *shares, dshift, *sizes
        _launch(_backward, x, ctx.groups, given, SILU=ctx.silu, SHIFTED=shift is not None)
        dweight, dbias = shares.sum(1)
        return dx, dshift, dweight, dbias, None, None, None, None


def group_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    shift: Tensor | None = None,
) -> Tensor:
    """x (N, C, H, W) in channels_last, weight and bias (C,) float32 -> same shape and layout.

    ``shift`` (N, C) is added to every pixel of x first. The result is float32, or what autocast
    rounds to where it is on. Gradients are for all tensors; there are none of gradients.
    """
    shift = None if shift is None else shift.float().contiguous()
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    out: Tensor = _GroupNorm.apply(x, shift, weight, bias, groups, eps, silu, dtype)
    return out
