"""Checkpoints of the paper's own code, read into this project's U-Net.

Such a file holds net_model, ema_model, sched, optim, step and fixed_x_T. The configuration is
inferred from the shapes of the weights. Every tensor must find its place and every place its
tensor: whatever is unknown, missing or of another shape is refused by name.
"""

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cbdm_scale.models.embeddings import sinusoid
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.models.unet import UNet
from cbdm_scale.storage.wording import clip, shorten

TIME = "time_embedding.timembedding"
TABLE = f"{TIME}.0.weight"
LABEL = "label_embedding.weight"
AUGMENT = "augm_embedding.weight"
HEAD = "head.weight"
WRAPPERS = "module.", "_orig_mod."
"""What DataParallel and torch.compile put before the names of a network's tensors."""

SECTIONS = {"net_model", "ema_model", "sched", "optim", "step", "fixed_x_T"}

BLOCK = {
    "norm_1": ["block1.0"],
    "conv_1": ["block1.2"],
    "emb": ["temb_proj.1"],
    "norm_2": ["block2.0"],
    "conv_2": ["block2.3"],
    "shortcut": ["shortcut"],
    "attention.norm": ["attn.group_norm"],
    "attention.qkv": ["attn.proj_q", "attn.proj_k", "attn.proj_v"],
    "attention.out": ["attn.proj"],
}
"""Modules of a residual block: our name -> theirs, joined along the first axis."""


@dataclass(frozen=True, kw_only=True)
class PaperCheckpoint:
    """What a checkpoint of the paper's code says, in this project's names."""

    config: UNetConfig
    num_classes: int
    image_channels: int
    augment: bool
    """Whether it has an embedding of ADA's nine numbers."""

    num_steps: int
    """T, the number of rows of the table of steps."""

    image_size: int | None
    """From ``fixed_x_T``; None where the file does not say."""

    step: int | None
    """Optimiser steps taken."""

    state_dict: dict[str, Tensor]
    """float32 weights, to be loaded with ``strict=True``."""

    report: tuple[str, ...]
    """What was read, mapped and assumed, in a few lines for people."""


def load_paper_checkpoint(
    path: str | Path, *, which: Literal["ema", "net"] = "ema"
) -> PaperCheckpoint:
    """Read the averaged ("ema") or the raw ("net") weights of a checkpoint of the paper's code.

    Dropout stands in no tensor, so the configuration has the paper's 0.1. The file has no row
    for "none"; the zeros put there add nothing, which is what that code does without a label.
    """
    content, section = _read(path), f"{which}_model"
    unknown = sorted(set(content) - SECTIONS)
    if unknown or section not in content:
        raise ValueError(
            f"{path} is not a checkpoint of the paper's code: "
            + (f"unknown entries {shorten(unknown)}." if unknown else f"it has no {section}.")
            + f" Expected {sorted(SECTIONS)}."
        )
    weights = _clean(content[section], f"{path}, {section}")
    config = _infer_config(weights, path)
    num_classes, channels = len(weights[LABEL]), weights[HEAD].shape[1]
    augment = AUGMENT in weights
    spec = NetworkSpec(
        model=config,
        channels=channels,
        image_size=2 ** len(config.multipliers),  # any size: no weight depends on it
        num_classes=num_classes,
        augment=augment,
    )
    with torch.device("meta"):
        net = UNet(config, spec)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    mapping = paper_names(config, shapes)
    _check_tensors(weights, mapping, shapes, path)
    _check_table(weights[TABLE], config.channels, path)

    state = {ours: torch.cat([weights[k] for k in theirs]) for ours, theirs in mapping.items()}
    none = torch.zeros(1, state["label.weight"].shape[1])
    state["label.weight"] = torch.cat([state["label.weight"], none])  # (K + 1, D)
    x_T, step = content.get("fixed_x_T"), content.get("step")
    return PaperCheckpoint(
        config=config,
        num_classes=num_classes,
        image_channels=channels,
        augment=augment,
        num_steps=len(weights[TABLE]),
        image_size=x_T.shape[-1] if isinstance(x_T, Tensor) and x_T.ndim == 4 else None,
        step=step if isinstance(step, int) else None,
        state_dict=state,
        report=_report(path, section, config, weights, mapping, content),
    )


# ----------------------------------------------------------------------------
# Reading.


def _read(path: str | Path) -> dict[str, Any]:
    """Load tensors and plain values; a file that holds anything else is refused."""
    try:
        if zipfile.is_zipfile(path):  # torch.load does not look at the checksums
            with zipfile.ZipFile(path) as archive:
                if sum(m.file_size for m in archive.infolist()) > 2 * Path(path).stat().st_size:
                    raise ValueError("its parts are compressed, which torch never does")
                if name := archive.testzip():
                    raise ValueError(f"wrong checksum of {name}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is damaged or cut short, or it holds "
            "pickled classes, which are never loaded. Save its state_dicts only, or copy it "
            f"again. ({repr(error)[:200]})"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(
            f"{path} is not a checkpoint of the paper's code: it holds a "
            f"{type(content).__name__}. Expected a dictionary with {sorted(SECTIONS)}."
        )
    return content


def _clean(section: Any, where: str) -> dict[str, Tensor]:
    """Weights in float32 under names without those of DataParallel and of torch.compile."""
    if not isinstance(section, dict) or not section:
        raise ValueError(f"{where} holds no weights. Expected names and tensors.")
    weights: dict[str, Tensor] = {}
    for key, value in section.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise ValueError(f"{where}: {clip(key)} is not a tensor of floating-point numbers.")
        if not value.isfinite().all():
            raise ValueError(f"{where}: {clip(key)} holds values that are not finite.")
        name = str(key)
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        weights[name] = value.detach().float()
    if len(weights) < len(section):
        raise ValueError(
            f"{where}: the same names occur with and without {' or '.join(WRAPPERS)}"
        )
    return weights


# ----------------------------------------------------------------------------
# Configuration and names.


def _infer_config(weights: dict[str, Tensor], path: str | Path) -> UNetConfig:
    """Read channels, levels, blocks and attention off the names and shapes of the weights."""
    missing = [key for key in (HEAD, TABLE, LABEL) if key not in weights]
    if missing:
        raise ValueError(
            f"{path}: missing tensors {missing}. An unconditional network, or not the paper's."
        )
    for key, num_axes in ((HEAD, 4), (TABLE, 2), (LABEL, 2)):
        if weights[key].ndim != num_axes:
            raise ValueError(
                f"{path}: {key} has {weights[key].ndim} axes instead of {num_axes}."
            )
    channels = len(weights[HEAD])
    levels: list[list[str]] = [[]]  # prefixes of the residual blocks of each level
    for i in range(len(weights)):
        prefix = f"downblocks.{i}"
        if f"{prefix}.main.weight" in weights:
            levels.append([])
        elif f"{prefix}.block1.2.weight" in weights:
            levels[-1].append(prefix)
        else:
            break
    if not all(len(level) == len(levels[0]) > 0 for level in levels):
        raise ValueError(
            f"{path}: its levels have {shorten([len(level) for level in levels])} residual "
            "blocks; this U-Net has as many on every level."
        )
    first = [level[0] for level in levels]
    return UNetConfig(
        channels=channels,
        multipliers=tuple(len(weights[f"{p}.block1.2.weight"]) // channels for p in first),
        num_blocks=len(levels[0]),
        groups=32,
        attention=tuple(i for i, p in enumerate(first) if f"{p}.attn.proj.weight" in weights),
    )


def paper_names(
    config: UNetConfig, ours: dict[str, tuple[int, ...]] | list[str]
) -> dict[str, tuple[str, ...]]:
    """For every tensor of our network, the tensors of theirs that it joins along axis 0."""
    modules = {
        "time.linear_1": [f"{TIME}.1"],
        "time.linear_2": [f"{TIME}.3"],
        "label": ["label_embedding"],
        "augment": ["augm_embedding"],
        "head": ["head"],
        "tail_norm": ["tail.0"],
        "tail": ["tail.2"],
    }

    def add_block(mine: str, their: str) -> None:
        for name, theirs in BLOCK.items():
            modules[f"{mine}.{name}"] = [f"{their}.{part}" for part in theirs]

    for i in range(2):
        add_block(f"middle.{i}", f"middleblocks.{i}")
    for way, num_blocks in (("down", config.num_blocks), ("up", config.num_blocks + 1)):
        for level in range(len(config.multipliers)):
            start = level * (num_blocks + 1)  # their list is flat: blocks, then the resampling
            for i in range(num_blocks):
                add_block(f"{way}.{level}.blocks.{i}", f"{way}blocks.{start + i}")
            modules[f"{way}.{level}.resample"] = [f"{way}blocks.{start + num_blocks}.main"]

    names = {}
    for name in ours:
        module, _, leaf = name.rpartition(".")
        names[name] = tuple(f"{their}.{leaf}" for their in modules[module])
    return names


def _check_tensors(
    weights: dict[str, Tensor],
    mapping: dict[str, tuple[str, ...]],
    shapes: dict[str, tuple[int, ...]],
    path: str | Path,
) -> None:
    expected = {TABLE} | {key for theirs in mapping.values() for key in theirs}
    unknown, missing = sorted(set(weights) - expected), sorted(expected - set(weights))
    if unknown or missing:
        raise ValueError(
            f"{path} does not fit the paper's U-Net: unknown tensors "
            f"{shorten(unknown) or 'none'}, missing tensors {shorten(missing) or 'none'}. "
            "Convert it to the names of the paper's code, all of them."
        )
    for name, theirs in mapping.items():
        rows, *rest = shapes[name]
        rows = rows - 1 if name == "label.weight" else rows // len(theirs)
        for key in theirs:
            if weights[key].shape != (rows, *rest):
                raise ValueError(
                    f"{path}: {key} has shape {tuple(weights[key].shape)}, but {name} of the "
                    f"network inferred from the file needs {(rows, *rest)}."
                )


def _check_table(table: Tensor, channels: int, path: str | Path) -> None:
    """The table of steps is a constant: it must be the one that ours computes."""
    ours = sinusoid(torch.arange(len(table)), channels)
    error = (table - ours).abs().max().item() if table.shape == ours.shape else math.inf
    if error > 1e-3:
        raise ValueError(
            f"{path}: {TABLE} is not the interleaved sinusoid of this U-Net (largest "
            f"difference {error:.3g}). The network was trained with another table."
        )


def _report(
    path: str | Path,
    section: str,
    config: UNetConfig,
    weights: dict[str, Tensor],
    mapping: dict[str, tuple[str, ...]],
    content: dict[str, Any],
) -> tuple[str, ...]:
    lines = [
        f"read {section} of {path}: {len(weights)} tensors, "
        f"{sum(tensor.numel() for tensor in weights.values()):,} numbers",
        f"inferred: {config.channels} channels, multipliers "
        f"{'-'.join(map(str, config.multipliers))}, {config.num_blocks} residual blocks a "
        f"level, attention at levels {list(config.attention)}, {len(weights[LABEL])} classes, "
        f"{weights[HEAD].shape[1]} image channels, {len(weights[TABLE])} steps, "
        f"augmentation layer: {'yes' if AUGMENT in weights else 'no'}",
    ]
    for part in dict.fromkeys(name.partition(".")[0] for name in mapping):
        theirs = [k for name in mapping for k in mapping[name] if name.startswith(f"{part}.")]
        sources = dict.fromkeys(key.partition(".")[0] for key in theirs)
        lines.append(f"mapped {len(theirs)} tensors of {', '.join(sources)} to {part}")
    lines += [
        f"checked {TABLE}: the constant table of steps, computed here instead of stored",
        f"added label row {len(weights[LABEL])} for no label: zeros, as the file has none",
        f"assumed model.dropout {config.dropout} and model.groups {config.groups}, as in the "
        "paper's code: the file does not say",
        f"left aside: {', '.join(sorted(set(content) - {section}))}",
    ]
    return tuple(lines)
