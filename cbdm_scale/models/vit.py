"""The Diffusion-ViT of the paper's reference [51]: GenViT (Yang et al., 2022).

A vision transformer that denoises patches. Before each block every token is scaled and shifted
by two numbers that a linear layer makes of the embedding; docs/paper.md says what is ours.

Shapes: N = batch, C = channels, H = W = image size, P = patch size, L = (H / P)^2 patches,
D = width of a token, K = classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbdm_scale.models.backbone import Backbone
from cbdm_scale.models.dit import Attention, join_patches, patch_layer
from cbdm_scale.models.embeddings import (
    extra_embeddings,
    init_xavier,
    label_embedding,
    sinusoid,
)
from cbdm_scale.models.options import ViTConfig
from cbdm_scale.models.spec import NetworkSpec


class Block(nn.Module):
    """Scale and shift of every token, then attention and perceptron, each after a norm."""

    def __init__(self, config: ViTConfig, num_tokens: int):
        super().__init__()
        width = config.width
        self.modulation = init_xavier(nn.Linear(4 * num_tokens, 2 * num_tokens))
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, config.heads, bias=False)
        self.norm_2 = nn.LayerNorm(width)
        self.hidden = init_xavier(nn.Linear(width, config.expansion * width))
        self.dropout = nn.Dropout(config.dropout)
        self.out = init_xavier(nn.Linear(config.expansion * width, width))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (N, 1 + L, D), emb (N, 4 (1 + L)) already through its SiLU."""
        scale, shift = self.modulation(emb).unsqueeze(2).chunk(2, dim=1)  # (N, 1 + L, 1)
        x = x * (1 + scale) + shift
        x = x + self.attention(self.norm_1(x))
        out: Tensor = x + self.out(self.dropout(F.gelu(self.hidden(self.norm_2(x)))))
        return out


class ViT(Backbone):
    """Predicts the noise eps in x_t: a ``denoiser.Net``.

    The embedding has four numbers for each
    token. The first token is none of the image's: a classifier's, in the paper.
    """

    def __init__(self, config: ViTConfig, spec: NetworkSpec):
        super().__init__()
        self.config = config
        width, num_tokens = config.width, 1 + (spec.image_size // config.patch) ** 2
        emb_width = 4 * num_tokens
        self.patches = patch_layer(spec.channels, width, config.patch)
        self.first = nn.Parameter(torch.randn(width))
        self.positions = nn.Parameter(torch.randn(num_tokens, width))
        self.time_1 = init_xavier(nn.Linear(width, emb_width))
        self.time_2 = init_xavier(nn.Linear(emb_width, emb_width))
        self.label = label_embedding(spec.num_classes, emb_width)
        self.feature_width = width
        self.blocks = nn.ModuleList(Block(config, num_tokens) for _ in range(config.depth))
        self.tail = init_xavier(nn.Linear(width, spec.channels * config.patch**2))
        self.augment, self.omega = extra_embeddings(spec, width, emb_width)

    def step(self, level: Tensor) -> Tensor:
        """Levels (N,) -> (N, 4 (1 + L))."""
        waves = sinusoid(level, self.config.width).to(self.time_1.weight.dtype)
        out: Tensor = self.time_2(F.gelu(self.time_1(waves)))
        return out

    def predict(self, x: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        """Noise in x (N, C, H, W), emb (N, 4 (1 + L)); the middle features (N, D, L)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # (N, L, D)
        first = self.first.to(tokens.dtype).expand(x.shape[0], 1, -1)
        h = torch.cat([first, tokens], dim=1) + self.positions  # (N, 1 + L, D)
        for i, block in enumerate(self.blocks):
            h = block(h, emb)
            if i == (len(self.blocks) - 1) // 2:
                middle = h[:, 1:].transpose(1, 2)  # (N, D, L)
        with torch.autocast(x.device.type, enabled=False):
            pieces = self.tail(h[:, 1:].to(self.tail.weight.dtype))  # (N, L, P P C)
        return join_patches(pieces, self.config.patch, x.shape[2]), middle
