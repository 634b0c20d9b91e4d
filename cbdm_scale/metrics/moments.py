"""Mean and covariance of features that arrive in pieces, in any order, on any worker.

Shapes: N = images in a piece, D = feature dimensions. Everything is float64 on the CPU.
"""

from math import isqrt
from typing import Self

import torch
from torch import Tensor


class Moments:
    """Sums over images: their number, sum f (D,), and sum f f^T (D, D)."""

    def __init__(self, dim: int):
        self.dim = dim
        self.count = 0
        self.sum = torch.zeros(dim, dtype=torch.float64)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Count the features (N, D) of N more images."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be (N, {self.dim}), got {tuple(features.shape)}")
        f = features.detach().to("cpu", torch.float64)
        if not f.isfinite().all():
            raise ValueError("features hold non-finite numbers: look at the images they are of")
        self.count += len(f)
        self.sum += f.sum(dim=0)
        self.outer += f.T @ f

    def __add__(self, other: "Moments") -> "Moments":
        if self.dim != other.dim:
            raise ValueError(f"features of {self.dim} and of {other.dim} dimensions do not mix")
        both = Moments(self.dim)
        both.count = self.count + other.count
        both.sum = self.sum + other.sum
        both.outer = self.outer + other.outer
        return both

    def __sub__(self, part: "Moments") -> "Moments":
        """Without a part of the images."""
        if self.dim != part.dim or part.count > self.count:
            raise ValueError(
                f"{part.count} images of {part.dim} dimensions are not a part of {self.count} "
                f"of {self.dim}"
            )
        rest = Moments(self.dim)
        rest.count = self.count - part.count
        rest.sum = self.sum - part.sum
        rest.outer = self.outer - part.outer
        return rest

    @property
    def mean(self) -> Tensor:
        """Mean feature, (D,)."""
        self._need(1)
        return self.sum / self.count

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, (D, D)."""
        self._need(2)
        mean = self.mean
        return (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)

    def _need(self, num_images: int) -> None:
        if self.count < num_images:
            raise ValueError(f"needs at least {num_images} images, got {self.count}")

    def state(self) -> Tensor:
        """All sums as one float64 vector (1 + D + D^2,), to be added over workers."""
        count = torch.tensor([self.count], dtype=torch.float64)
        return torch.cat([count, self.sum, self.outer.flatten()])

    @classmethod
    def from_state(cls, state: Tensor) -> Self:
        """Undo ``state``."""
        dim = (isqrt(4 * state.numel() - 3) - 1) // 2
        assert state.numel() == 1 + dim + dim * dim, "not a state of Moments"
        moments = cls(dim)
        flat = state.detach().to("cpu", torch.float64, copy=True)
        moments.count = round(flat[0].item())
        moments.sum = flat[1 : 1 + dim]
        moments.outer = flat[1 + dim :].view(dim, dim)
        return moments


def moments_of(features: Tensor, piece: int = 8192) -> Moments:
    """Moments of features (N, D), a piece at a time."""
    moments = Moments(features.shape[1])
    for part in features.split(piece):
        moments.add(part)
    return moments
