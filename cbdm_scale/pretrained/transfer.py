"""The weights of a trained network in another one: label rows by class, the rest by name.

K = classes of the new network, and K' those of the trained one, D = width of an embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cbdm_scale.storage.wording import clip, shorten

LABEL = "label.weight"
"""The table of labels in every backbone: one row a class, the last for "none"."""

ADDED = "omega.", "augment."
"""Layers that a network may have or lack: they start at zero, so a new one changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a network starts from, and what became of every tensor."""

    tensors: dict[str, Tensor]
    """Ours by name; what is not in it keeps its fresh weights."""

    new: tuple[str, ...]
    """Tensors of the new network that the trained one lacks."""

    left: tuple[str, ...]
    """Tensors of the trained network that the new one has no place for."""


def transfer(
    net: nn.Module, trained: Mapping[str, Tensor], rows: Sequence[int | None]
) -> Transfer:
    """``trained`` for ``net``, whose class c starts from label row ``rows[c]`` (K,) of it.

    None is the mean of the trained network's K' rows. "none" starts from "none". ValueError
    names what does not fit.
    """
    ours = net.state_dict()
    new = tuple(sorted(set(ours) - set(trained)))
    left = tuple(sorted(set(trained) - set(ours)))
    if wrong := [name for name in new + left if not name.startswith(ADDED)]:
        raise ValueError(
            f"it is of another network than the one configured: {len(wrong)} tensors have no "
            f"partner, the first is {clip(wrong[0])}. Leave the options of --model out: then "
            "they are the trained network's."
        )
    if trained[LABEL].shape[1:] == ours[LABEL].shape[1:]:
        trained = {**trained, LABEL: _label_table(trained[LABEL], rows)}
    differing = [
        f"{name} has shape {tuple(trained[name].shape)} there, {tuple(tensor.shape)} here"
        for name, tensor in ours.items()
        if name in trained and trained[name].shape != tensor.shape
    ]
    if differing:
        raise ValueError(
            f"{len(differing)} tensors do not fit: "
            f"{shorten(differing, 3, each=160, between='; ')}. The first and the last layer's "
            "shapes are the images' channels, others are options of --model."
        )
    tensors = {name: trained[name].float() for name in ours if name in trained}
    return Transfer(tensors=tensors, new=new, left=left)


def _label_table(trained: Tensor, rows: Sequence[int | None]) -> Tensor:
    """(K' + 1, D) -> (K + 1, D): rows by number, None is the mean of K'; "none" last."""
    classes, none = trained[:-1], trained[-1:]
    mean = classes.mean(0, keepdim=True)
    picked = [mean if row is None else classes[row : row + 1] for row in rows]
    return torch.cat([*picked, none])
