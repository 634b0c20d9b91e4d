"""A network's weights in the precision of its calls, for networks that learn no more."""

from copy import deepcopy

import torch
from torch import nn

from cbdm_scale.models.embeddings import EMBEDDINGS

FLOAT32 = *EMBEDDINGS, "tail", "tail_modulation"
"""Layers that compute in float32 under autocast too: of the embedding, and the last."""


def cast_weights(net: nn.Module, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """A copy with what autocast makes of the weights at each call, made once: the same bits.

    These are the weights of convolutions and linear layers. Embedding, norms and the last layer
    stay as they are. The copy is called under autocast, as ``net`` is.
    """
    net = deepcopy(net)
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and name.partition(".")[0] not in FLOAT32:
            layer.to(dtype)
    return net
