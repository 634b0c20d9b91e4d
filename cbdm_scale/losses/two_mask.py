"""Consistency of two passes with different dropout masks, weighted by class.

What is left of "capacity manipulation" (CM, ICLR 2026) when its low-rank expert is taken away:
there the second prediction is that of the network without the expert.

Shapes: N = images, C, H, W = image, K = classes.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.losses.term import Branch, Draws, HostDraws, Predicted, Term, Values, mean_sq

LEAST = -0.25
"""Weight of a class at least. Both passes are one network, so that E|h - h2|^2 is twice the
variance that masks give: below -1/2 the sum with L_DM has no minimum."""


def class_weights(counts: Tensor, weight: float, diversity: float) -> Tensor:
    """K weight (p - diversity q), p ~ counts and q ~ 1 / counts: (K,) float32.

    Frequent classes are held together, and rare ones less, or even apart.
    """
    p, q = counts / counts.sum(), (1 / counts) / (1 / counts).sum()
    scaled = len(counts) * weight * (p - diversity * q)
    return scaled.clamp_min(LEAST).float()


@dataclass(frozen=True)
class TwoMask(Term):
    """w_y |h - h2|^2 beside L_DM: h2 is predicted at the same x_t, with the same label.

    Zero for an image whose label was dropped.
    """

    class_weights: Tensor  # (K,) float32

    def draw(self, host: HostDraws) -> dict[str, NDArray[Any]]:
        """The weights (K,): masks are dropout's own."""
        return {"class_weights": self.class_weights.numpy()}

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """h2."""
        return {"again": Branch(y)}

    def values(self, predicted: Predicted) -> Values:
        """Pulls both predictions."""
        apart = mean_sq(predicted.e - predicted.further["again"])
        pull = predicted.draws.term_draws["class_weights"][predicted.y] * apart
        pull = pull.masked_fill(predicted.draws.dropped, 0)
        return Values((pull,), {"two_mask": pull})
