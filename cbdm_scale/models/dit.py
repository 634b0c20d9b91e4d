"""DiT (Peebles & Xie, 2023): a transformer over patches, with step and label by adaLN-Zero.

Shapes: N = batch, C = channels, H = W = image size, P = patch size, L = (H / P)^2 tokens,
D = width, K = classes.
"""

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
from cbdm_scale.models.options import DiTConfig
from cbdm_scale.models.spec import NetworkSpec

FREQUENCIES = 256
"""Numbers of the sinusoid of a step."""


def position_table(side: int, width: int) -> Tensor:
    """Fixed sines and cosines of column and row, half of the width each: (side^2, width)."""
    place = torch.arange(side, dtype=torch.float64)
    frequency = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.outer(place, frequency)  # (side, width / 4)
    wave = torch.cat([angle.sin(), angle.cos()], 1)  # (side, width / 2)
    column = wave.repeat(side, 1)
    row = wave.repeat_interleave(side, 0)
    return torch.cat([column, row], 1).float()


def patch_layer(channels: int, width: int, patch: int) -> nn.Conv2d:
    """Images (N, C, H, W) -> a token of each patch, (N, D, H / P, W / P)."""
    layer = nn.Conv2d(channels, width, patch, patch)
    nn.init.xavier_uniform_(layer.weight.view(width, -1))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def join_patches(pieces: Tensor, patch: int, size: int) -> Tensor:
    """Tokens (N, L, P P C), row by row of the image, as images (N, C, H, W)."""
    side = size // patch
    grid = pieces.unflatten(2, (patch, patch, -1)).unflatten(1, (side, side))
    images: Tensor = grid.permute(0, 5, 1, 3, 2, 4).reshape(pieces.shape[0], -1, size, size)
    return images


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (N, L, D), shift and scale (N, D)."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class LayerNorm(nn.LayerNorm):
    """Without weights, in float32 under autocast too."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-6, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> same shape and dtype."""
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x.float(), self.normalized_shape, eps=self.eps).to(x.dtype)


class Attention(nn.Module):
    """Self-attention over tokens: (N, L, D) -> same."""

    def __init__(self, width: int, heads: int, bias: bool = True):
        super().__init__()
        self.heads = heads
        self.qkv = init_xavier(nn.Linear(width, 3 * width, bias=bias))
        self.out = init_xavier(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, L, D) -> what each token takes from all: (N, L, D)."""
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)  # 3 x (N, heads, L, D / heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """adaLN-Zero: shift, scale and gate of both branches from the embedding; the gates are 0
    at the start, so that a new block is the identity."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.norm = LayerNorm(width)
        self.attention = Attention(width, heads)
        self.hidden = init_xavier(nn.Linear(width, 4 * width))
        self.out = init_xavier(nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)
        self.modulation = _zeros(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (N, L, D), emb (N, D) already through its SiLU."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(emb).chunk(6, 1)
        h = self.attention(modulate(self.norm(x), shift_1, scale_1))
        x = x + gate_1.unsqueeze(1) * h
        h = self.hidden(modulate(self.norm(x), shift_2, scale_2))
        h = self.out(self.dropout(F.gelu(h, approximate="tanh")))
        out: Tensor = x + gate_2.unsqueeze(1) * h
        return out


def _zeros(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class DiT(Backbone):
    """Predicts the noise eps in x_t: a ``denoiser.Net``.

    ``out_channels`` is C unless given: the published networks predict a variance too, and have
    2C.
    """

    positions: Tensor  # (L, D)

    def __init__(self, config: DiTConfig, spec: NetworkSpec, out_channels: int | None = None):
        super().__init__()
        depth, width, heads = config.shape
        self.config = config
        self.patches = patch_layer(spec.channels, width, config.patch)
        table = position_table(spec.image_size // config.patch, width)
        self.register_buffer("positions", table, persistent=False)
        self.time_1 = nn.Linear(FREQUENCIES, width)
        self.time_2 = nn.Linear(width, width)
        for layer in (self.time_1, self.time_2):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.label = label_embedding(spec.num_classes, width)
        with torch.no_grad():
            self.label.weight[: spec.num_classes].mul_(0.02)
        self.feature_width = width
        self.blocks = nn.ModuleList(Block(width, heads, config.dropout) for _ in range(depth))
        self.tail_norm = LayerNorm(width)
        self.tail_modulation = _zeros(nn.Linear(width, 2 * width))
        self.tail = _zeros(nn.Linear(width, config.patch**2 * (out_channels or spec.channels)))
        self.augment, self.omega = extra_embeddings(spec, FREQUENCIES, width)

    def step(self, level: Tensor) -> Tensor:
        """Levels (N,) -> (N, D)."""
        waves = sinusoid(level, FREQUENCIES, self.config.step_shift)
        hidden = F.silu(self.time_1(waves.to(self.time_1.weight.dtype)))
        out: Tensor = self.time_2(hidden)
        return out

    def predict(self, x: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        """Noise in x (N, C, H, W) with emb (N, D); features (N, D, L) of the middle block."""
        h = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (N, L, D)
        for i, block in enumerate(self.blocks):
            h = block(h, emb)
            if i == (len(self.blocks) - 1) // 2:
                middle = h.transpose(1, 2)  # (N, D, L)
        with torch.autocast(x.device.type, enabled=False):
            h, emb = h.float(), emb.float()
            shift, scale = self.tail_modulation(emb).chunk(2, 1)
            pieces = self.tail(modulate(self.tail_norm(h), shift, scale))  # (N, L, P P C)
        return join_patches(pieces, self.config.patch, x.shape[2]), middle
