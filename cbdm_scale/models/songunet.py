"""DDPM++ and NCSN++ (Song et al., 2021), in the form of EDM (Karras et al., 2022, Table 7).

A U-Net whose residual sums are scaled by sqrt(1/2) and which resamples inside its blocks.
NCSN++ embeds the level by Fourier features, resamples with a smoother filter and adds the image
again at every level of the way down.

Shapes: N = batch, C = channels, H = height, W = width, D = width of an embedding, K = classes.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbdm_scale.models.backbone import Backbone
from cbdm_scale.models.embeddings import (
    extra_embeddings,
    init_xavier,
    label_embedding,
    sinusoid,
)
from cbdm_scale.models.norm import GroupNorm
from cbdm_scale.models.options import TAPS, SongConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.models.unet import NEAR_ZERO, Attention, conv

EPS = 1e-6
"""Of every normalisation."""
RESCALE = math.sqrt(0.5)
"""Of every sum of two branches: it keeps the variance."""
FOURIER_SCALE = 16.0
"""Standard deviation of the frequencies of the Fourier features."""

Way = Literal["", "down", "up"]


# ----------------------------------------------------------------------------
# Parts.


def norm_groups(channels: int) -> int:
    """32 groups, or fewer so that each has 4 channels and all have as many."""
    return next(n for n in range(min(32, channels // 4), 0, -1) if channels % n == 0)


def frequencies(count: int) -> Tensor:
    """The quantiles of |N(0, 16^2)| in place of draws: (count,), a constant, nothing to save.

    The sign of a frequency carries nothing, as sine and cosine are both there.
    """
    middle = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return (FOURIER_SCALE * math.sqrt(2) * torch.erfinv(middle)).float()


class Filter(nn.Module):
    """Halves and doubles images with a separable filter, the same for every channel."""

    kernel: Tensor  # (1, 1, F, F), with sum 1

    def __init__(self, taps: tuple[int, ...]):
        super().__init__()
        row = torch.tensor(taps, dtype=torch.float32) / sum(taps)
        kernel = torch.outer(row, row).view(1, 1, len(taps), len(taps))
        self.register_buffer("kernel", kernel, persistent=False)
        self.pad = (len(taps) - 1) // 2

    def down(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / 2, W / 2)."""
        kernel = self.kernel.expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, kernel, stride=2, padding=self.pad, groups=x.shape[1])

    def up(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2H, 2W)."""
        kernel = 4 * self.kernel.expand(x.shape[1], -1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=self.pad, groups=x.shape[1])

    def blur(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H + 1, W + 1): what a 3x3 convolution of stride 2 halves."""
        kernel = self.kernel.expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, kernel, padding=self.pad + 1, groups=x.shape[1])


class Block(nn.Module):
    """Two normalised 3x3 convolutions around the embedding, added to their input.

    ``way`` halves ("down") or doubles ("up") the image within both branches, as BigGAN does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: SongConfig,
        resample: Filter,
        *,
        way: Way = "",
        attention: bool = False,
    ):
        super().__init__()
        self.way, self.resample = way, resample
        self.norm_1 = GroupNorm(norm_groups(in_channels), in_channels, EPS, silu=True)
        self.conv_1 = conv(in_channels, out_channels, 3)
        self.emb = init_xavier(nn.Linear(4 * config.channels, out_channels))
        self.norm_2 = GroupNorm(norm_groups(out_channels), out_channels, EPS, silu=True)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_2 = conv(out_channels, out_channels, 3, gain=NEAR_ZERO)
        same = in_channels == out_channels and not way
        self.shortcut = nn.Identity() if same else conv(in_channels, out_channels, 1)
        groups = norm_groups(out_channels)
        self.attention = Attention(out_channels, groups, EPS) if attention else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (N, C, H, W) and emb (N, D), already through its SiLU, which all blocks share."""
        h = self.norm_1(x)
        if self.way == "down":
            h, x = self.resample.down(h), self.resample.down(x)
        elif self.way == "up":
            h, x = self.resample.up(h), self.resample.up(x)
        h = self.norm_2.after(self.conv_1, h, self.emb(emb))
        h = self.conv_2(self.dropout(h))
        out: Tensor = (h + self.shortcut(x)) * RESCALE
        if self.attention is not None:
            out = self.attention(out) * RESCALE
        return out


# ----------------------------------------------------------------------------
# The network.


class SongUNet(Backbone):
    """Predicts the noise eps in x_t, or EDM's F: a ``denoiser.Net``.

    Levels given as floating-point numbers are EDM's c_noise; whole ones are steps out of
    ``num_steps``, which enter the Fourier features as t / T.
    """

    frequencies: Tensor  # (noise_channels / 2,)

    def __init__(self, config: SongConfig, spec: NetworkSpec):
        super().__init__()
        self.config, self.num_steps = config, spec.num_steps
        noise, width = config.noise_channels, 4 * config.channels
        self.register_buffer("frequencies", frequencies(noise // 2), persistent=False)
        self.label = label_embedding(spec.num_classes, noise)
        self.time_1 = init_xavier(nn.Linear(noise, width))
        self.time_2 = init_xavier(nn.Linear(width, width))

        self.resample = resample = Filter(TAPS[config.filter])
        self.head = conv(spec.channels, config.channels, 3)
        self.down, self.again, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        now, seen, skips = config.channels, spec.channels, [config.channels]
        for i, multiplier in enumerate(config.multipliers):
            if i > 0:
                self.down.append(Block(now, now, config, resample, way="down"))
                skips.append(now)
                if config.residual_input:
                    layer = nn.Conv2d(seen, now, 3, stride=2)  # what ``blur`` made larger
                    self.again.append(init_xavier(layer))
                    seen = now
            for _ in range(config.num_blocks):
                there = multiplier * config.channels
                attends = i in config.attention
                self.down.append(Block(now, there, config, resample, attention=attends))
                now = there
                skips.append(now)

        self.feature_width = now
        self.middle = nn.ModuleList(
            [Block(now, now, config, resample, attention=attends) for attends in (True, False)]
        )

        last = len(config.multipliers) - 1
        for i, multiplier in reversed(list(enumerate(config.multipliers))):
            if i < last:
                self.up.append(Block(now, now, config, resample, way="up"))
            for j in range(config.num_blocks + 1):
                there = multiplier * config.channels
                attends = i in config.attention and j == config.num_blocks
                width_in = now + skips.pop()
                self.up.append(Block(width_in, there, config, resample, attention=attends))
                now = there

        self.tail_norm = GroupNorm(norm_groups(now), now, EPS, silu=True)
        self.tail = conv(now, spec.channels, 3, gain=NEAR_ZERO)
        self.augment, self.omega = extra_embeddings(spec, noise, noise)

    def step(self, level: Tensor) -> Tensor:
        """The level in sines and cosines: (N,) -> (N, noise_channels)."""
        if self.config.embedding == "positional":
            waves = sinusoid(level, self.config.noise_channels)
        else:
            turns = level.float() if level.is_floating_point() else level / self.num_steps
            angle = torch.outer(2 * math.pi * turns, self.frequencies.float())
            waves = torch.cat([angle.cos(), angle.sin()], dim=1)
        return waves.to(self.time_1.weight.dtype)

    def mix(self, emb: Tensor) -> Tensor:
        """The perceptron, behind the sum: (N, noise_channels) -> (N, D)."""
        out: Tensor = self.time_2(F.silu(self.time_1(emb)))
        return out

    def predict(self, x: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction for x (N, C, H, W) with emb (N, D); features of the bottleneck."""
        h, image, again = self.head(x), x, iter(self.again)
        skips = [h]
        for block in self.down:
            h = block(h, emb)
            if block.way == "down" and self.config.residual_input:
                h = image = (h + next(again)(self.resample.blur(image))) * RESCALE
            skips.append(h)
        for block in self.middle:
            h = block(h, emb)
        bottleneck = h.flatten(2)  # (N, D, L)
        for block in self.up:
            h = block(h if block.way == "up" else torch.cat([h, skips.pop()], dim=1), emb)
        # The loss compares predictions that differ little: no rounding to bf16 at the end.
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.tail(self.tail_norm(h))
        return out, bottleneck
