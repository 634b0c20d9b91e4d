"""DiTTransformer2DModel of the library diffusers and our DiT: one table for both directions.

Theirs keeps the embedding of step and label once in every block, all alike; positions are the
same fixed table, computed there as here. Its step waves are those of model.step_shift 1, and no
weights turn one into the other. Its last layer may predict a variance too: that half is left.
"""

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from cbdm_scale.models.dit import FREQUENCIES, DiT
from cbdm_scale.models.options import SIZES, DiTConfig, DiTSize
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.diffusers_unet import (
    Pair,
    check_tensors,
    refuse,
    to_ours,
    to_theirs,
    wave_order,
)
from cbdm_scale.pretrained.transfer import ADDED

DIT = "DiTTransformer2DModel"

FIXED: dict[str, Any] = {
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
"""Fields of config.json, with the value (and default) that makes it our DiT."""

EMBEDDING = {
    "time_1": "timestep_embedder.linear_1",
    "time_2": "timestep_embedder.linear_2",
    "label": "class_embedder.embedding_table",
}
ENDS = {
    "patches": "pos_embed.proj",
    "tail_modulation": "proj_out_1",
    "tail": "proj_out_2",
}
BLOCK = {
    "attention.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attention.out": ("attn1.to_out.0",),
    "hidden": ("ff.net.0.proj",),
    "out": ("ff.net.2",),
    "modulation": ("norm1.linear",),
}


def dit_pairs(names: list[str], block: int = 0) -> list[Pair]:
    """The table, with the embedding that stands in ``block``."""
    pairs = []
    for name in names:
        if name.startswith(ADDED):
            continue
        module, _, leaf = name.rpartition(".")
        if module in ENDS:
            theirs: tuple[str, ...] = (ENDS[module],)
        elif module in EMBEDDING:
            theirs = (f"transformer_blocks.{block}.norm1.emb.{EMBEDDING[module]}",)
        else:
            _, number, part = module.split(".", 2)
            theirs = tuple(f"transformer_blocks.{number}.{their}" for their in BLOCK[part])
        waves = wave_order(FREQUENCIES, True) if name == "time_1.weight" else None
        pairs.append(Pair(ours=name, theirs=tuple(f"{t}.{leaf}" for t in theirs), waves=waves))
    return pairs


def _dit_to_config(about: Mapping[str, Any]) -> DiTConfig:
    """Our configuration; ValueError names the field that makes it another network."""
    for field, value in FIXED.items():
        if (found := about.get(field, value)) != value:
            refuse(DIT, field, found, value)
    if (eps := about.get("norm_eps", 1e-5)) > 1e-5:
        refuse(DIT, "norm_eps", eps, "1e-6, or diffusers' 1e-5")
    heads, depth = about.get("num_attention_heads", 16), about.get("num_layers", 28)
    shape = (depth, heads * about.get("attention_head_dim", 72), heads)
    names = get_args(DiTSize)
    size: DiTSize = next((size for size in names if SIZES[size] == shape), "S")
    own = shape if SIZES[size] != shape else (0, 0, 0)
    return DiTConfig(
        size=size,
        depth=own[0],
        width=own[1],
        heads=own[2],
        patch=about.get("patch_size", 2),
        dropout=about.get("dropout", 0.0),
        step_shift=1,
    )


def config_to_dit(
    config: DiTConfig, *, image_channels: int, image_size: int, num_classes: int
) -> dict[str, Any]:
    """config.json of the same network there, with a last label for "none".

    ValueError if theirs has none such.
    """
    if config.step_shift != 1:
        raise ValueError(
            f"the network has model.step_shift {config.step_shift}: a {DIT} hears the step in "
            "waves of step_shift 1 alone, and no weights turn one into the other. Train with "
            "--model.step-shift 1"
        )
    depth, width, heads = config.shape
    return {
        "_class_name": DIT,
        "_diffusers_version": "0.42.1",
        "sample_size": image_size,
        "patch_size": config.patch,
        "in_channels": image_channels,
        "out_channels": image_channels,
        "num_layers": depth,
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "num_embeds_ada_norm": num_classes,
        **FIXED,
        "norm_eps": 1e-6,
        "dropout": config.dropout,
        "upcast_attention": False,
    }


def dit_to_theirs(config: DiTConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their names, the embedding in every block."""
    theirs: dict[str, Tensor] = {}
    for block in range(config.shape[0]):
        theirs |= to_theirs(dit_pairs(list(state), block), state)
    return theirs


def dit_from_theirs(
    about: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[DiTConfig, dict[str, Tensor], list[str]]:
    """Configuration and weights of our DiT, and notes; their label K is "none", as ours."""
    config, channels = _dit_to_config(about), about["in_channels"]
    outputs, notes = about.get("out_channels") or channels, []
    if about.get("norm_eps", 1e-5) != 1e-6:
        notes.append(
            "note: norm_eps is 1e-6 here, as in DiT's own code, 1e-5 in half its norms"
        )
    if outputs not in (channels, 2 * channels):
        refuse(DIT, "out_channels", outputs, [channels, 2 * channels])
    spec = NetworkSpec(
        model=config,
        channels=channels,
        image_size=about["sample_size"],
        num_classes=about["num_embeds_ada_norm"],
    )
    with torch.device("meta"):
        net = DiT(config, spec, out_channels=outputs)
    weights = {name: w for name, w in weights.items() if name != "pos_embed.pos_embed"}
    check_tensors(weights, dit_to_theirs(config, net.state_dict()))
    state = to_ours(dit_pairs(list(net.state_dict())), weights)
    for block in range(config.shape[0]):
        again = to_ours(dit_pairs(list(net.state_dict()), block), weights)
        if other := [name for name, t in again.items() if not torch.equal(t, state[name])]:
            raise ValueError(
                f"block {block} has a {other[0]} of its own: ours has one for all blocks."
            )
    if outputs > channels:
        notes.append("left the variance that its last layer predicts: ours is fixed")
        for leaf in ("tail.weight", "tail.bias"):
            rows = state[leaf].unflatten(0, (config.patch**2, outputs))
            state[leaf] = rows[:, :channels].flatten(0, 1)
    return config, state, notes
