"""What losses may be given of a network besides its prediction: the features in its middle.

They leave by its own forward, so that DDP, torch.compile and a CUDA graph see them as they see
the prediction. Shapes: N = batch, D = width of a feature, L = its places in the image.
"""

from typing import Protocol

from torch import Tensor, nn

PROJECTION = "projection."
"""How the names of the projection's weights begin."""


class Featured(Protocol):
    """A backbone that gives its features: the U-Net's bottleneck, a transformer's middle."""

    feature_width: int  # D
    projection: nn.Linear | None


def add_projection(net: nn.Module, width: int) -> None:
    """Give a backbone a linear layer on its mean features, for training alone.

    It is a part of the network there, so that DDP, optimiser, checkpoints and averages have
    it; whoever loads a trained network leaves it out (`pretrained.network`). Its weights are
    drawn last: the others of a seed are those of a network without it.
    """
    net.projection = nn.Linear(net.feature_width, width)  # type: ignore[arg-type]


def with_features(net: Featured, out: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """The prediction, the features h (N, D, L), and where there is a layer its (N, width)."""
    if net.projection is None:
        return out, h
    return out, h, net.projection(h.mean(2))
