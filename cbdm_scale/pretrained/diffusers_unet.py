"""Networks of the library diffusers and ours: the same weights under two sets of names.

``Pair`` is one tensor of ours and what it is made of there; the table of pairs serves both
directions, and config.json decides whether there is one. UNet2DModel with num_class_embeds is
our U-Net where the fields of ``FIXED`` have these values. diffusers itself is not needed.

Shapes: C = channels, D = width of an embedding, F = numbers of the sinusoid of a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.models.unet import UNet
from cbdm_scale.pretrained.transfer import ADDED
from cbdm_scale.storage.wording import clip, shorten

UNET = "UNet2DModel"

FIXED: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 0,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "act_fn": "silu",
    "attention_head_dim": None,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
}
"""Fields of UNet2DModel's config.json, with the value that makes it our U-Net."""

DEFAULTS: dict[str, Any] = {**FIXED, "attention_head_dim": 8}
"""What a field means that is not there."""

BLOCK = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "emb": "time_emb_proj",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "shortcut": "conv_shortcut",
}
ATTENTION = {"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)}
ENDS = {
    "head": "conv_in",
    "time.linear_1": "time_embedding.linear_1",
    "time.linear_2": "time_embedding.linear_2",
    "label": "class_embedding",
    "tail_norm": "conv_norm_out",
    "tail": "conv_out",
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One tensor of ours."""

    ours: str
    theirs: tuple[str, ...]
    """Joined along the first axis."""

    waves: Tensor | None = None
    """(F,) columns of theirs in the order of ours: sines and cosines stand differently."""

    pointwise: bool = False
    """Ours is a 1x1 convolution, theirs a matrix."""


def to_ours(pairs: list[Pair], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under their names -> float32 weights under ours."""
    ours: dict[str, Tensor] = {}
    for pair in pairs:
        tensor = torch.cat([theirs[name].float() for name in pair.theirs])
        if pair.waves is not None:
            tensor = tensor[:, pair.waves]
        ours[pair.ours] = tensor[:, :, None, None] if pair.pointwise else tensor
    return ours


def to_theirs(pairs: list[Pair], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: the inverse of ``to_ours``, to the bit."""
    theirs: dict[str, Tensor] = {}
    for pair in pairs:
        tensor = ours[pair.ours]
        if pair.waves is not None:
            tensor = tensor[:, pair.waves.argsort()]
        tensor = tensor[:, :, 0, 0] if pair.pointwise else tensor
        parts = tensor.chunk(len(pair.theirs))
        theirs |= {
            name: part.contiguous() for name, part in zip(pair.theirs, parts, strict=True)
        }
    return theirs


def wave_order(width: int, cosines_first: bool) -> Tensor:
    """(F,) where sine 0, cosine 0, sine 1, .. of ours stand in halves of sines and cosines."""
    first, second = torch.arange(width).chunk(2)
    sines, cosines = (second, first) if cosines_first else (first, second)
    return torch.stack([sines, cosines], dim=1).flatten()


def unet_pairs(names: list[str], channels: int, cosines_first: bool) -> list[Pair]:
    """The table for a U-Net with tensors ``names`` and F = ``channels``.

    Layers that ours may have and theirs never has are left out.
    """
    pairs = []
    for name in names:
        if name.startswith(ADDED):
            continue
        module, _, leaf = name.rpartition(".")
        theirs = tuple(f"{their}.{leaf}" for their in _unet_modules(module))
        pairs.append(
            Pair(
                ours=name,
                theirs=theirs,
                waves=wave_order(channels, cosines_first)
                if name == "time.linear_1.weight"
                else None,
                pointwise=leaf == "weight"
                and module.endswith(("attention.qkv", "attention.out")),
            )
        )
    return pairs


def _unet_modules(module: str) -> tuple[str, ...]:
    """A module of our U-Net -> theirs."""
    if module in ENDS:
        return (ENDS[module],)
    place, _, part = module.partition(".attention.")
    words = place.split(".")
    if words[0] == "middle":
        home, number, rest = "mid_block", words[1], words[2:]
    elif words[2] == "resample":
        sampler = "downsamplers" if words[0] == "down" else "upsamplers"
        return (f"{words[0]}_blocks.{words[1]}.{sampler}.0.conv",)
    else:
        home, number, rest = f"{words[0]}_blocks.{words[1]}", words[3], words[4:]
    if part:
        return tuple(f"{home}.attentions.{number}.{their}" for their in ATTENTION[part])
    return (f"{home}.resnets.{number}.{BLOCK[rest[0]]}",)


def _unet_to_config(about: Mapping[str, Any]) -> UNetConfig:
    """Our configuration; ValueError names the field that makes it another network."""
    channels = about["block_out_channels"]
    levels = range(len(channels))
    down = about["down_block_types"]
    if len(down) != len(channels):
        refuse(UNET, "down_block_types", down, f"one of each of {len(channels)} levels")
    attention = tuple(level for level in levels if down[level] == "AttnDownBlock2D")
    expected = _unet_types(len(channels), attention)
    expected |= {"time_embedding_dim": 4 * channels[0], "out_channels": about["in_channels"]}
    given = {
        **DEFAULTS,
        "time_embedding_dim": None,
        **{name: value for name, value in about.items() if value is not None},
    }
    given["attention_head_dim"] = about.get(
        "attention_head_dim", DEFAULTS["attention_head_dim"]
    )
    attended = {channels[level] for level in (*attention, levels[-1])}
    if {given["attention_head_dim"]} == attended:
        given["attention_head_dim"] = None  # one head either way
    if given["time_embedding_dim"] is None:
        given["time_embedding_dim"] = 4 * channels[0]
    if given["act_fn"] == "swish":
        given["act_fn"] = "silu"
    if given["attn_norm_num_groups"] == about.get("norm_num_groups", 32):
        given["attn_norm_num_groups"] = None
    for field, value in {**FIXED, **expected}.items():
        if given[field] != value:
            refuse(UNET, field, given[field], value)
    if about.get("num_class_embeds") is None:
        refuse(UNET, "num_class_embeds", None, "a number of classes")
    if any(width % channels[0] for width in channels):
        refuse(UNET, "block_out_channels", channels, f"multiples of {channels[0]}")
    return UNetConfig(
        channels=channels[0],
        multipliers=tuple(width // channels[0] for width in channels),
        num_blocks=about.get("layers_per_block", 2),
        attention=attention,
        groups=about.get("norm_num_groups", 32),
        dropout=about.get("dropout", 0.0),
    )


def _unet_types(num_levels: int, attention: tuple[int, ...]) -> dict[str, Any]:
    """Their kinds of levels, down and up."""
    marks = ["Attn" if level in attention else "" for level in range(num_levels)]
    return {
        "down_block_types": [f"{mark}DownBlock2D" for mark in marks],
        "up_block_types": [f"{mark}UpBlock2D" for mark in reversed(marks)],
    }


def refuse(kind: str, field: str, value: Any, needed: Any) -> None:
    """ValueError that names the field of their config.json which makes it another network."""
    raise ValueError(
        f"it is a {kind} whose {field} is {clip(repr(value))}: ours is that network only "
        f"where {field} is {needed!r}. Such weights cannot be taken over."
    )


def config_to_unet(
    config: UNetConfig, *, image_channels: int, image_size: int, num_classes: int
) -> dict[str, Any]:
    """config.json of the UNet2DModel that computes what our U-Net computes; K + 1 labels, the
    last is "none". ValueError names the option that makes it none of theirs."""
    if config.multipliers[0] != 1:
        raise ValueError(
            f"model.multipliers {config.multipliers} does not begin with 1: UNet2DModel's "
            "first convolution is as wide as its first level"
        )
    return {
        "_class_name": UNET,
        "_diffusers_version": "0.42.1",
        "sample_size": image_size,
        "in_channels": image_channels,
        "out_channels": image_channels,
        "flip_sin_to_cos": True,
        **FIXED,
        **_unet_types(len(config.multipliers), config.attention),
        "block_out_channels": [m * config.channels for m in config.multipliers],
        "layers_per_block": config.num_blocks,
        "dropout": config.dropout,
        "norm_num_groups": config.groups,
        "num_class_embeds": num_classes + 1,
    }


def unet_from_theirs(
    about: Mapping[str, Any], weights: Mapping[str, Tensor], *, none_row: bool
) -> tuple[UNetConfig, dict[str, Tensor]]:
    """Configuration and weights of our U-Net. ``none_row``: their last label is "none"."""
    config = _unet_to_config(about)
    rows = about["num_class_embeds"]
    spec = NetworkSpec(
        model=config,
        channels=about["in_channels"],
        image_size=2 ** len(config.multipliers),  # any size: no weight depends on it
        num_classes=rows - 1,
    )
    with torch.device("meta"):
        net = UNet(config, spec)
    shapes = net.state_dict()
    pairs = unet_pairs(list(shapes), config.channels, about.get("flip_sin_to_cos", True))
    check_tensors(weights, to_theirs(pairs, shapes))
    state = to_ours(pairs, weights)
    if not none_row:
        table = state["label.weight"]
        state["label.weight"] = torch.cat([table, torch.zeros_like(table[:1])])
    return config, state


def check_tensors(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """ValueError names what is unknown, missing or of another shape."""
    unknown, missing = (
        sorted(set(weights) - set(expected)),
        sorted(set(expected) - set(weights)),
    )
    if unknown or missing:
        raise ValueError(
            "its weights are not those of its config.json: unknown "
            f"{shorten(unknown) or 'none'}, missing {shorten(missing) or 'none'}. Load and "
            "save it once with a current diffusers."
        )
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise ValueError(
                f"{name} has shape {tuple(weights[name].shape)}, its config.json says "
                f"{tuple(tensor.shape)}."
            )
        if not weights[name].isfinite().all():
            raise ValueError(f"{name} holds values that are not finite.")
