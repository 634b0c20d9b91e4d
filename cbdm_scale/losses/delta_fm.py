"""Contrastive flow matching, Delta-FM (Stoica et al., ICCV 2025, 2506.05350).

A prediction is pushed away from what would be right for an image of another class.

Shapes: N = images of the micro-batch, C, H, W = image.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.diffusion.process import Process
from cbdm_scale.diffusion.schedule import expand_as
from cbdm_scale.losses.term import HostDraws, Predicted, Term, Values, mean_sq


def other_class(y: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """For each image one of another class: which (N,), and whether there is one (N,).

    y (N,) labels; u (N,) in (0, 1) chooses among those of other classes, all alike.
    """
    place = (y.unsqueeze(1) != y).cumsum(1)  # (N, N), counts the others from the left
    num_others = place[:, -1]
    chosen = (u * num_others).long()  # 0..num_others - 1
    index = (place <= chosen.unsqueeze(1)).sum(1)
    return index.clamp_max(len(y) - 1), num_others > 0


def velocity_target(process: Process, target: Tensor, change: Tensor, t: Tensor) -> Tensor:
    """The target (N, C, H, W) if x_0 were x_0 + change, in the space of velocities.

    The noise stays, so that the velocity alpha eps - sigma x_0 changes by the image alone; in
    the space of images that is x_0 + rho change at the same x_t, with rho the noise's share
    of the variance of x_t. Between predictions of noise nothing would change but the noise,
    and a negative would only rescale them.
    """
    noise = process.sigma(t).square()
    rho = noise / (noise + process.sigma_data**2)
    return target + expand_as(process.target_slope(t) * rho, change) * change


@dataclass(frozen=True)
class DeltaFM(Term):
    """-weight |h - target_j|^2, beside L_DM: j is an image of another class, at the t of i.

    Zero for an image whose label was dropped, and where all are of one class. It chooses among
    the images of the micro-batch on one worker. With a weight below 1 the sum has a minimum,
    at x_0 + weight / (1 - weight) rho (x_0 - mean of the other classes).
    """

    weight: float
    purposes: ClassVar = ("negative",)

    def draw(self, host: HostDraws) -> dict[str, NDArray[Any]]:
        """Which of the images of other classes: (N,) in (0, 1)."""
        return {"negative": host.uniform["negative"]}

    def values(self, predicted: Predicted) -> Values:
        """The negative part of the paper's Equation for class-conditional training."""
        draws, x0 = predicted.draws, predicted.x0
        j, found = other_class(predicted.y, draws.term_draws["negative"])
        negative = velocity_target(
            predicted.process, predicted.noisy.target, x0[j] - x0, draws.t
        )
        pushed = -self.weight * mean_sq(predicted.e - negative)
        pushed = pushed.masked_fill(draws.dropped | ~found, 0)
        return Values((pushed,), {"delta_fm": pushed})
