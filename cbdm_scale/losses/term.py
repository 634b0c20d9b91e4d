"""What an objective is a sum of: terms.

Shapes: N = images of the batch, n = images of a branch, C, H, W = image, K = classes (label K
means "none"), T = steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from cbdm_scale.diffusion.process import Noisy


@dataclass(frozen=True)
class Draws:
    """What chance decides for N images, each number a function of its image alone."""

    t: Tensor  # (N,) steps: int64 in 0..T-1, or under EDM float64 quantiles in (0, 1)
    eps: Tensor  # (N, C, H, W) standard normal
    dropped: Tensor  # (N,) bool, label dropped for guidance
    kept: Tensor  # (G,) int64, the images whose label was not dropped
    term_draws: Mapping[str, Tensor] = field(default_factory=dict)  # what the terms drew
    augment: Tensor | None = None  # (N, 9) how x0 was augmented, if the network is given it

    def to(self, device: torch.device) -> "Draws":
        """The same numbers on a device; nothing waits."""

        def move(v: Tensor) -> Tensor:
            return v.to(device, non_blocking=True)

        return Draws(
            move(self.t),
            move(self.eps),
            move(self.dropped),
            move(self.kept),
            {name: move(v) for name, v in self.term_draws.items()},
            None if self.augment is None else move(self.augment),
        )


@dataclass(frozen=True)
class Branch:
    """A prediction at the x_t of some images: with which label, and which strength."""

    y: Tensor  # (n,) labels in 0..K
    rows: Tensor | None = None  # (n,) int64, of which images; None is all of them
    omega: Tensor | None = None  # (n,) guidance strength; None is "no omega"


@dataclass(frozen=True)
class Predicted:
    """A batch with the predictions made of it: what the value of a term may depend on."""

    x0: Tensor  # (N, C, H, W) in [-1, 1]
    y: Tensor  # (N,) labels, also of the images whose label was dropped
    noisy: Noisy  # x_t, its level, and the target: eps, or under EDM the raw output's
    draws: Draws
    e: Tensor  # (N, C, H, W) float32, of the image's own label, or "none" where it was dropped
    further: Mapping[str, Tensor]  # name of a branch -> (n, C, H, W) float32


@dataclass(frozen=True)
class Values:
    """The loss of each image by one term."""

    added: tuple[Tensor, ...]  # (N,) each, summed into the total in this order
    logged: dict[str, Tensor]  # name -> (N,)


class Term(Protocol):
    """A part of an objective. Images that it does not concern get zero.

    What a later term needs besides is a further field, with a default, of `Branch` (to ask
    for it) and of `Predicted` (to be given it): the other terms stay as they are.
    """

    def draw(self, seed: int, images: Tensor, dropped: Tensor) -> dict[str, Tensor]:
        """Its own random numbers by name, made with `rng` under purposes of its own.

        images (N,) int64 numbers since the run began, dropped (N,) bool; both on the CPU, so
        that choosing some of the images makes no device wait.
        """
        ...

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """The further predictions that it wants, by name; y (N,) are the images' labels.

        Terms that want the same prediction give it the same name: it is made once.
        """
        ...

    def values(self, predicted: Predicted) -> Values:
        """Its value for each image, of all predictions of the batch."""
        ...


def mean_sq(x: Tensor) -> Tensor:
    """Squared norm as a mean over all axes but the first: (N, ...) -> (N,)."""
    return x.square().flatten(1).mean(1)


def scatter(values: Tensor, rows: Tensor, num_images: int) -> Tensor:
    """Values (n,) of the images ``rows`` (n,), zero for the others: (num_images,)."""
    return values.new_zeros(num_images).index_add(0, rows, values)
