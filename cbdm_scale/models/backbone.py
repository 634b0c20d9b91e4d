"""What all networks share: conditions that go in, features of the middle that may come out.

Shapes: N = batch, C = channels, H = height, W = width, K = classes, E = width of the embedding,
D = width of a feature, L = its places in the image.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbdm_scale.models.embeddings import NUM_AUGMENT, OmegaEmbedding

PROJECTION = "projection."
"""How the names of the projection's weights begin."""


class Backbone(nn.Module, ABC):
    """A ``denoiser.Net`` of two steps: the conditions as one vector, then the images with it.

    The features leave by its own forward, so that DDP, torch.compile and a CUDA graph see them
    as they see the prediction.
    """

    label: nn.Embedding
    augment: nn.Linear | None
    omega: OmegaEmbedding | None
    feature_width: int
    """D: of the U-Net's bottleneck, or of a transformer's middle."""
    projection: nn.Linear | None

    def __init__(self) -> None:
        super().__init__()
        self.projection = None

    def add_projection(self, width: int) -> None:
        """A linear layer on the mean features, for training alone.

        It is a part of the network there, so that DDP, optimiser, checkpoints and averages have
        it; whoever loads a trained network leaves it out (`pretrained.network`). Its weights
        are drawn last: the others of a seed are those of a network without it.
        """
        self.projection = nn.Linear(self.feature_width, width)

    @abstractmethod
    def step(self, level: Tensor) -> Tensor:
        """The embedding of levels (N,), (N, E), to which the other conditions are added."""

    def mix(self, emb: Tensor) -> Tensor:
        """What is made of the sum of all conditions (N, E)."""
        return emb

    @abstractmethod
    def predict(self, x: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction for x (N, C, H, W), and the features in the middle (N, D, L)."""

    def embed(
        self,
        level: Tensor,
        y: Tensor,
        augment: Tensor | None = None,
        omega: Tensor | None = None,
    ) -> Tensor:
        """All conditions, through a SiLU: (N, E), in float32 under autocast too.

        levels (N,), labels y (N,), augment (N, 9), omega (N,). A layer without input gets
        zeros: they add nothing, but keep it in DDP's graph. ValueError if there is input
        without a layer for it.
        """
        if augment is not None and self.augment is None:
            raise ValueError("this network has no augment layer. Try --data.augment ada.")
        if omega is not None and self.omega is None:
            raise ValueError(OmegaEmbedding.MISSING)
        with torch.autocast(level.device.type, enabled=False):
            emb: Tensor = self.step(level) + self.label(y)
            if self.augment is not None:
                numbers = emb.new_zeros(len(emb), NUM_AUGMENT) if augment is None else augment
                emb = emb + self.augment(numbers.to(emb.dtype))
            if self.omega is not None:
                emb = emb + self.omega(emb.new_zeros(len(emb)) if omega is None else omega)
            return F.silu(self.mix(emb))

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
        features: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """The prediction for x (N, C, H, W) at levels (N,) for labels y (N,).

        features: then a tuple with those of the middle (N, D, L) behind it, and where there is
        a projection its (N, width).
        """
        out, middle = self.predict(x, self.embed(level, y, augment, omega))
        out = out.to(x.dtype)
        if not features:
            return out
        if self.projection is None:
            return out, middle
        return out, middle, self.projection(middle.mean(2))
