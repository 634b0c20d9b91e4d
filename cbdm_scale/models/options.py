"""Options of the backbones: what a network of each kind can be."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from cbdm_scale.storage.checks import Length, PositiveInt, Range, check_fields

TAPS = {"box": (1, 1), "smooth": (1, 3, 3, 1)}
"""Filters of the resampling, along each axis, before they are normed."""

DiTSize = Literal["S", "B", "L", "XL"]

SIZES: dict[str, tuple[int, int, int]] = {
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
"""Table 1: blocks, width, heads."""


_Dropout = Annotated[float, Range(ge=0, lt=1)]
_Multipliers = Annotated[tuple[PositiveInt, ...], Length(le=16)]
"""16 halvings leave nothing of any image."""
_OfSize = Annotated[int, Range(ge=0, hint="0 is that of --model.size.")]
_Blocks = Annotated[int, Range(ge=1, le=256)]


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    channels: int = 128
    """Channels at full resolution, a multiple of ``groups``."""

    multipliers: _Multipliers = (1, 2, 2, 2)
    """Channels of each level in units of ``channels``; every further level halves the image."""

    num_blocks: _Blocks = 2
    """Residual blocks a level on the way down; on the way up there is one more."""

    attention: tuple[int, ...] = (1,)
    """Levels with self-attention, 0 the finest; level 1 is 16x16 for images of 32x32."""

    groups: PositiveInt = 32
    """Groups of every normalisation. With one channel a group (32 channels in 32 groups) the
    blocks at full resolution are blind to step and label: what is added to a whole channel, the
    normalisation takes away again. Small networks want 8."""

    dropout: _Dropout = 0.1
    """Probability with which a residual block drops an activation in training."""

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        if self.channels < 1 or self.channels % self.groups or self.channels % 2:
            raise ValueError(
                f"model.channels ({self.channels}) must be even and divisible by model.groups "
                f"({self.groups}). Try --model.channels {2 * self.groups}, or --model.groups 8."
            )
        _check_attention(self.attention, len(self.multipliers))


def _check_attention(attention: tuple[int, ...], levels: int) -> None:
    """ValueError unless these are some of the levels, each once."""
    if len(set(attention)) < len(attention) or not all(0 <= i < levels for i in attention):
        raise ValueError(
            f"model.attention {attention} must name different levels out of 0..{levels - 1}, "
            f"as model.multipliers has {levels}. Try {levels - 1}."
        )


@dataclass(frozen=True, kw_only=True)
class SongConfig:
    channels: int = 128
    """Channels that ``multipliers`` count in, a multiple of 4."""

    multipliers: _Multipliers = (2, 2, 2)
    """Channels of each level in units of ``channels``; every further level halves the image."""

    num_blocks: _Blocks = 4
    """Residual blocks a level on the way down; on the way up there is one more."""

    attention: tuple[int, ...] = (1,)
    """Levels with self-attention, 0 the finest; level 1 is 16x16 for images of 32x32."""

    dropout: _Dropout = 0.13
    """Probability with which a residual block drops an activation in training."""

    embedding: Literal["positional", "fourier"] = "positional"
    """How the level is embedded: DDPM's sinusoid, or NCSN++'s Fourier features."""

    filter: Literal["box", "smooth"] = "box"
    """What images are resampled with: taps 1-1, or NCSN++'s 1-3-3-1."""

    residual_input: bool = False
    """Whether the image is added again at every level of the way down, as in NCSN++."""

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        if self.channels < 4 or self.channels % 4:
            raise ValueError(
                f"model.channels ({self.channels}) must be a multiple of 4. Try "
                f"--model.channels {max(4, self.channels // 4 * 4)}."
            )
        _check_attention(self.attention, len(self.multipliers))

    @property
    def noise_channels(self) -> int:
        """Numbers of the features of a level: twice as many where they are Fourier's."""
        return self.channels * (2 if self.embedding == "fourier" else 1)


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    size: DiTSize = "S"
    """Blocks, width and heads of Table 1: S, B, L or XL."""

    patch: PositiveInt = 2
    """Side of a patch in pixels: 2, 4 or 8 in the paper. Half of it is four times the work."""

    depth: _OfSize = 0
    """Blocks; 0 is the size's."""

    width: _OfSize = 0
    """Numbers of a token, a multiple of 4 and of ``heads``; 0 is the size's."""

    heads: _OfSize = 0
    """Heads of each attention; 0 is the size's."""

    dropout: _Dropout = 0.0
    """Probability with which a block drops an activation of its perceptron. The paper: 0."""

    step_shift: Literal[0, 1] = 0
    """Waves of a step have frequencies 10000^(-i / (128 - step_shift)): 0 as in DiT's own code,
    1 as in the library diffusers, which loads an exported network with 1 alone."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Blocks, width, heads."""
        depth, width, heads = SIZES[self.size]
        return self.depth or depth, self.width or width, self.heads or heads

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        _, width, heads = self.shape
        _check_heads(width, heads)


def _check_heads(width: int, heads: int) -> None:
    """ValueError unless every head gets as many numbers, and every coordinate its waves."""
    if width % heads or width % 4:
        raise ValueError(
            f"model.width ({width}) must be divisible by 4 and by model.heads ({heads}). Try "
            f"--model.width {math.lcm(4, heads) * max(1, width // math.lcm(4, heads))}."
        )


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    patch: PositiveInt = 4
    """Side of a patch in pixels: 4 in the paper for images of 32x32, 8 for larger ones."""

    depth: PositiveInt = 9
    """Blocks."""

    width: PositiveInt = 384
    """Numbers of a token, a multiple of 4 and of ``heads``."""

    heads: PositiveInt = 12
    """Heads of each attention."""

    expansion: PositiveInt = 2
    """Hidden width of each perceptron in units of ``width``."""

    dropout: _Dropout = 0.0
    """Probability with which a block drops an activation of its perceptron."""

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        _check_heads(self.width, self.heads)


BackboneName = Literal["unet", "ddpmpp", "ncsnpp", "dit", "vit"]


ModelConfig = UNetConfig | SongConfig | DiTConfig | ViTConfig


BACKBONES: dict[str, Callable[..., ModelConfig]] = {
    "unet": UNetConfig,
    "ddpmpp": SongConfig,
    "ncsnpp": partial(SongConfig, embedding="fourier", filter="smooth", residual_input=True),
    "dit": DiTConfig,
    "vit": ViTConfig,
}
"""Name of a backbone -> its configuration; the configuration's type decides what is built."""


def backbone_config(backbone: str, **options: Any) -> ModelConfig:
    """A backbone's configuration by its name; ValueError names those that there are."""
    if backbone not in BACKBONES:
        raise ValueError(
            f"backbone ({backbone}) is not known. Choose from: {', '.join(BACKBONES)}."
        )
    return BACKBONES[backbone](**options)


def check_image_size(config: ModelConfig, image_size: int) -> None:
    """ValueError unless each level but the last can halve the image, or patches tile it."""
    match config:
        case UNetConfig() | SongConfig():
            levels = len(config.multipliers)
            factor = 2 ** (levels - 1)
            if image_size < factor or image_size % factor:
                raise ValueError(
                    f"model.multipliers {config.multipliers} has {levels} levels, which need "
                    f"an image size divisible by {factor}, got {image_size}. Try fewer levels."
                )
        case DiTConfig() | ViTConfig():
            if image_size % config.patch:
                sizes = [p for p in range(1, image_size + 1) if image_size % p == 0]
                raise ValueError(
                    f"model.patch ({config.patch}) must divide the image size ({image_size}). "
                    f"Try --model.patch {min(sizes, key=lambda p: abs(p - config.patch))}."
                )
