"""What an objective is a sum of: terms.

Shapes: N = images of the batch, n = images of a branch, B = batch of all ranks, C, H, W =
image, K = classes (label K means "none"), T = steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.diffusion.process import Noisy, Process


@dataclass(frozen=True)
class HostDraws:
    """What the terms draw from, on the host. Nothing of it depends on rank or micro-batch."""

    dropped: NDArray[np.bool_]  # (N,) label dropped for guidance
    uniform: Mapping[str, NDArray[np.float64]]  # purpose -> (N,) in (0, 1), of each image
    places: NDArray[np.int64]  # (N,) of the step's B places, counted from a random one
    batch_size: int  # B

    def window(self, share: float) -> tuple[NDArray[np.int64] | None, NDArray[np.float32]]:
        """A share of the step's batch: which of the N images (n,), None for all; weights (n,).

        It is a window of round(share B) neighbours among the B places, modulo B, and at least
        one. Equally spaced images, such as those of a rank or of a micro-batch, hold the same
        number of them or one fewer. So n is fixed: N round(share B) / B, rounded up, and one
        that is too many weighs 0, as an image does whose label was dropped. The others weigh
        the inverse of the share: the expectation of a mean over all images stays.
        """
        size = max(1, round(share * self.batch_size))
        weights = ((self.places < size) & ~self.dropped) * np.float32(self.batch_size / size)
        if size == self.batch_size:
            return None, weights
        usual = -(-len(weights) * size // self.batch_size)
        # More of images that are not equally spaced: micro-batches of unequal sizes.
        num_rows = max(usual, np.count_nonzero(self.places < size))
        rows = np.argsort(self.places, kind="stable")[:num_rows]
        return rows, weights[rows]


@dataclass(frozen=True)
class Draws:
    """What chance decides for N images, on the device; shapes do not depend on chance."""

    t: Tensor  # (N,) steps: int64 in 0..T-1, or under EDM float64 quantiles in (0, 1)
    eps: Tensor  # (N, C, H, W) standard normal
    dropped: Tensor  # (N,) bool, label dropped for guidance
    term_draws: Mapping[str, Tensor] = field(default_factory=dict)  # what the terms drew
    augment: Tensor | None = None  # (N, 9) how x0 was augmented, if the network is given it


OWN = "own"
"""The branch that every objective has: the image's own label, or "none" where it was dropped.
A term gives it this name to be given its features, or to say its strength, as one term may; the
label is not the term's to say."""


@dataclass(frozen=True)
class Branch:
    """A prediction at the x_t of some images: with which label, and which strength."""

    y: Tensor  # (n,) labels in 0..K
    rows: Tensor | None = None  # (n,) int64, of which images; None is all of them
    omega: Tensor | None = None  # (n,) guidance strength; None is "no omega"
    features: bool = False  # whether the network's features are wanted too


@dataclass(frozen=True)
class Predicted:
    """A batch with the predictions made of it: what the value of a term may depend on."""

    x0: Tensor  # (N, C, H, W) in [-1, 1]
    y: Tensor  # (N,) labels, also of the images whose label was dropped
    noisy: Noisy  # x_t, its level, and the target: eps, or under EDM the raw output's
    draws: Draws
    process: Process
    e: Tensor  # (N, C, H, W) float32, of the image's own label, or "none" where it was dropped
    further: Mapping[str, Tensor]  # name of a branch -> (n, C, H, W) float32
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """Name of a branch, OWN among them -> (n, D, L) float32, where a term wants features."""
    projected: Mapping[str, Tensor] = field(default_factory=dict)
    """The same -> (n, width) float32, of a network that has a projection."""


@dataclass(frozen=True)
class Values:
    """The loss of each image by one term."""

    added: tuple[Tensor, ...]  # (N,) each, summed into the total in this order
    logged: dict[str, Tensor]  # name -> (N,)


class Term(Protocol):
    """A part of an objective. Images that it does not concern weigh 0.

    Its shapes must not depend on chance: an image is given the weight 0 and not left out, and
    a share of the images is a `HostDraws.window`. So a step can be captured and repeated.
    What a later term needs besides is a further field, with a default, of `Branch` (to ask
    for it) and of `Predicted` (to be given it): the other terms stay as they are.
    """

    purposes: ClassVar[tuple[str, ...]] = ()
    """What it wants a uniform number of each image for, in names of its own."""

    def draw(self, host: HostDraws) -> dict[str, NDArray[Any]]:
        """What it wants on the device, by name: random numbers (n,), made of those of its
        purposes, or constants such as a number of each class (K,). Here nothing: step, noise
        and dropped labels belong to every objective."""
        return {}

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """The further predictions that it wants, by name; y (N,) are the images' labels.

        Terms that want the same prediction give it the same name: it is made once. Here none
        beyond the image's own.
        """
        return {}

    def values(self, predicted: Predicted) -> Values:
        """Its value for each image, of all predictions of the batch."""
        ...


def mean_sq(x: Tensor) -> Tensor:
    """Squared norm as a mean over all axes but the first: (N, ...) -> (N,)."""
    return x.square().flatten(1).mean(1)


def gather(v: Tensor, rows: Tensor | None) -> Tensor:
    """What some images have of v (N, ...): (n, ...). ``rows`` (n,), or None for all."""
    return v if rows is None else v[rows]


def scatter(values: Tensor, rows: Tensor | None, num_images: int) -> Tensor:
    """Values (n,) of the images ``rows`` (n,), zero for the others: (num_images,)."""
    if rows is None:
        return values
    return values.new_zeros(num_images).index_add(0, rows, values)
