"""The conditions of a network: step, label, augmentation, guidance strength.

Shapes: N = batch, K = classes, T = steps, D = width of an embedding.
"""

import math
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbdm_scale.models.spec import NetworkSpec

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

NUM_AUGMENT = 9
"""Parameters by which ADA's augmentation pipeline describes what it did to an image."""

EMBEDDINGS = "time", "time_1", "time_2", "label", "augment", "omega"
"""Layers of the embedding, in every backbone."""

INTO_BLOCKS = "emb", "modulation", "tail_modulation"
"""Layers by which blocks are given the embedding."""

OMEGA_SCALE = 10.0
"""Angle in radians of the fastest wave at guidance strength 1: smooth from 0 to a few."""


def sinusoid(level: Tensor, channels: int, shift: int = 0) -> Tensor:
    """Sines and cosines of the level, interleaved: (N,) -> (N, channels) float32.

    Entry 2i is sin(level * w_i), entry 2i + 1 its cosine, with w_i = 10000 ** (-2i / channels);
    ``shift`` 1 has channels - 2 there.
    """
    octave = torch.arange(0, channels, 2, device=level.device) / (channels - 2 * shift)
    octave = octave * math.log(10000)
    angle = level.float().unsqueeze(1) * torch.exp(-octave)  # (N, channels / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class TimeEmbedding(nn.Module):
    """A two-layer perceptron on the sinusoid of the step: (N,) -> (N, D).

    Whole steps are looked up in a table of T rows, which is a constant: neither trained nor
    saved. Levels given as floating-point numbers are computed by the same formula, so that
    ``embed(t)`` and ``embed(t.float())`` agree.
    """

    table: Tensor  # (T, channels)

    def __init__(self, channels: int, width: int, num_steps: int):
        super().__init__()
        table = sinusoid(torch.arange(num_steps), channels)
        self.register_buffer("table", table, persistent=False)
        self.linear_1 = init_xavier(nn.Linear(channels, width))
        self.linear_2 = init_xavier(nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        """IndexError for a whole step outside 0..T-1."""
        if level.is_floating_point():
            waves = sinusoid(level, self.table.shape[1])
        else:
            waves = F.embedding(level, self.table)  # (N, channels)
        hidden = F.silu(self.linear_1(waves.to(self.linear_1.weight.dtype)))
        out: Tensor = self.linear_2(hidden)  # (N, D)
        return out


def label_embedding(num_classes: int, width: int) -> nn.Embedding:
    """K + 1 trainable rows: one a class, and row K for "none", which starts at zero.

    Starting there, a network without a label is the network with nothing added, as in the
    paper's code, which has no such row.
    """
    embedding = nn.Embedding(num_classes + 1, width)
    with torch.no_grad():
        embedding.weight[num_classes].zero_()
    return embedding


class OmegaEmbedding(nn.Module):
    """TCFG's guidance strength (Appendix C): (N,) -> (N, D), exactly zero at omega = 0.

    The sinusoid of the strength less that of strength 0, through two layers without bias: so
    omega = 0 is "no omega" whatever is learnt. The last layer starts at zero, so that a new one
    changes nothing.
    """

    MISSING = (
        "omega was given, but this network has no omega-conditioned layer (TCFG). Train one "
        "with --loss.tcfg, or guide with two predictions (CFG)."
    )

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.linear_1 = init_xavier(nn.Linear(channels, width, bias=False))
        self.linear_2 = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.linear_2.weight)

    def forward(self, omega: Tensor) -> Tensor:
        """omega (N,), 0 and above -> (N, D)."""
        channels = self.linear_1.in_features
        waves = sinusoid(OMEGA_SCALE * omega, channels) - sinusoid(omega.new_zeros(1), channels)
        hidden = F.silu(self.linear_1(waves.to(self.linear_1.weight.dtype)))
        out: Tensor = self.linear_2(hidden)  # (N, D)
        return out


def extra_embeddings(
    spec: NetworkSpec, channels: int, width: int
) -> tuple[nn.Linear | None, OmegaEmbedding | None]:
    """The layers of augmentation and guidance strength that the spec asks for.

    The first is linear and without bias, (N, 9) -> (N, D). Both start at zero, so that a new
    one changes nothing, and are made last, so that the other weights of a seed are those of a
    network without them.
    """
    augment = nn.Linear(NUM_AUGMENT, width, bias=False) if spec.augment else None
    if augment is not None:
        nn.init.zeros_(augment.weight)
    return augment, OmegaEmbedding(channels, width) if spec.omega_max > 0 else None


def set_trainable(
    net: nn.Module, which: Literal["all", "embeddings", "omega"]
) -> list[nn.Parameter]:
    """Freeze the other weights, and list those that learn.

    embeddings: and the layers that take them into the blocks; omega: the strength's alone.
    """
    layers = {"omega"} if which == "omega" else {*EMBEDDINGS, *INTO_BLOCKS}
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(which == "all" or not layers.isdisjoint(name.split(".")))
    return [parameter for parameter in net.parameters() if parameter.requires_grad]


def init_xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Glorot's uniform weights, zero biases; a small gain makes a layer start near zero."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
