"""The U-Net of DDPM (Ho et al., 2020), given labels: the paper's network (Section 4.1).

Shapes: N = batch, C = channels, H = height, W = width, D = width of an embedding, K = classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbdm_scale.models.backbone import Backbone
from cbdm_scale.models.embeddings import (
    TimeEmbedding,
    extra_embeddings,
    init_xavier,
    label_embedding,
)
from cbdm_scale.models.norm import GroupNorm
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec

NEAR_ZERO = 1e-5
"""Gain of each last layer: a block starts as (nearly) the identity, the network at 0."""


# ----------------------------------------------------------------------------
# Parts.


def conv(
    in_channels: int, out_channels: int, size: int, stride: int = 1, gain: float = 1.0
) -> nn.Conv2d:
    """A convolution that keeps the size of the image, but for its stride."""
    layer = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2)
    return init_xavier(layer, gain)


class Attention(nn.Module):
    """Self-attention over pixels with one head, added to its input: (N, C, H, W) -> same."""

    def __init__(self, channels: int, groups: int, eps: float = 1e-5):
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps)
        self.qkv = conv(channels, 3 * channels, 1)
        for part in self.qkv.weight.chunk(3):  # as three layers of their own
            nn.init.xavier_uniform_(part)
        self.out = conv(channels, channels, 1, gain=NEAR_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> x plus what each pixel takes from all."""
        tokens = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # (N, HW, 3C)
        q, k, v = tokens.unsqueeze(1).chunk(3, dim=-1)  # 3 x (N, 1, HW, C)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:]))
        return x + out


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions around the embedding, added to their input."""

    def __init__(
        self, in_channels: int, out_channels: int, config: UNetConfig, *, attention: bool
    ):
        super().__init__()
        groups = config.groups
        self.norm_1 = GroupNorm(groups, in_channels, silu=True)
        self.conv_1 = conv(in_channels, out_channels, 3)
        self.emb = init_xavier(nn.Linear(4 * config.channels, out_channels))
        self.norm_2 = GroupNorm(groups, out_channels, silu=True)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_2 = conv(out_channels, out_channels, 3, gain=NEAR_ZERO)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else conv(in_channels, out_channels, 1)
        self.attention = Attention(out_channels, groups) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (N, C, H, W) and emb (N, D), already through its SiLU, which all blocks share."""
        h = self.norm_2.after(self.conv_1, self.norm_1(x), self.emb(emb))
        h = self.conv_2(self.dropout(h))
        out: Tensor = self.attention(h + self.shortcut(x))
        return out


class DownLevel(nn.Module):
    """The blocks at one resolution, then, but for the last, a strided convolution."""

    def __init__(self, blocks: list[ResidualBlock], resample: nn.Conv2d | None):
        super().__init__()
        self.blocks, self.resample = nn.ModuleList(blocks), resample

    def forward(self, h: Tensor, emb: Tensor) -> list[Tensor]:
        """h (N, C, H, W), emb (N, D) -> every activation: the way up takes them again."""
        skips = []
        for block in self.blocks:
            h = block(h, emb)
            skips.append(h)
        if self.resample is not None:
            skips.append(self.resample(h))  # (N, C, H / 2, W / 2)
        return skips


class UpLevel(nn.Module):
    """The blocks at one resolution, then nearest neighbours and a convolution to the next."""

    def __init__(self, blocks: list[ResidualBlock], resample: nn.Conv2d | None):
        super().__init__()
        self.blocks, self.resample = nn.ModuleList(blocks), resample

    def forward(self, h: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Each block takes the newest skip off the list, beside what comes from below."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        if self.resample is not None:
            h = self.resample(F.interpolate(h, scale_factor=2))  # (N, C, 2H, 2W)
        return h


# ----------------------------------------------------------------------------
# The network.


class UNet(Backbone):
    """Predicts the noise eps in x_t: a ``denoiser.Net``.

    The spec's ``num_steps`` is the number of rows of the table of steps; levels given as
    floating-point numbers do not use it.
    """

    def __init__(self, config: UNetConfig, spec: NetworkSpec):
        super().__init__()
        self.config = config
        base, width = config.channels, 4 * config.channels
        self.time = TimeEmbedding(base, width, spec.num_steps)
        self.label = label_embedding(spec.num_classes, width)

        def block(in_channels: int, out_channels: int, attention: bool) -> ResidualBlock:
            return ResidualBlock(in_channels, out_channels, config, attention=attention)

        self.head = conv(spec.channels, base, 3)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        now, skips, last = base, [base], len(config.multipliers) - 1
        for i, multiplier in enumerate(config.multipliers):
            blocks = []
            for _ in range(config.num_blocks):
                blocks.append(block(now, multiplier * base, i in config.attention))
                now = multiplier * base
                skips.append(now)
            if i < last:
                skips.append(now)
            self.down.append(
                DownLevel(blocks, conv(now, now, 3, stride=2) if i < last else None)
            )

        self.feature_width = now
        self.middle = nn.ModuleList([block(now, now, True), block(now, now, False)])

        for i, multiplier in reversed(list(enumerate(config.multipliers))):
            blocks = []
            for _ in range(config.num_blocks + 1):
                width_in = now + skips.pop()
                blocks.append(block(width_in, multiplier * base, i in config.attention))
                now = multiplier * base
            self.up.append(UpLevel(blocks, conv(now, now, 3) if i > 0 else None))

        self.tail_norm = GroupNorm(config.groups, now, silu=True)
        self.tail = conv(now, spec.channels, 3, gain=NEAR_ZERO)
        self.augment, self.omega = extra_embeddings(spec, base, width)

    def step(self, level: Tensor) -> Tensor:
        """Steps (N,) -> (N, D)."""
        out: Tensor = self.time(level)
        return out

    def predict(self, x: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        """Noise in x (N, C, H, W) with emb (N, D); features of the bottleneck."""
        skips = [self.head(x)]
        for down in self.down:
            skips += down(skips[-1], emb)
        h = skips[-1]
        for block in self.middle:
            h = block(h, emb)
        bottleneck = h.flatten(2)  # (N, D, L)
        for up in self.up:
            h = up(h, emb, skips)
        # The loss compares predictions that differ little: no rounding to bf16 at the end.
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.tail(self.tail_norm(h))
        return out, bottleneck
