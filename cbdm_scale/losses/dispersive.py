"""Dispersive loss (Wang & He, 2025, 2506.09027): features are spread, without any positive.

Shapes: N = images of the micro-batch, D = width of a feature, L = its places in the image.
"""

from dataclasses import dataclass

from torch import Tensor

from cbdm_scale.losses.contrast import dispersion
from cbdm_scale.losses.term import OWN, Branch, Draws, Predicted, Term, Values


@dataclass(frozen=True)
class Dispersive(Term):
    """weight log mean_ij exp(-|z_i - z_j|^2 / D L), beside L_DM.

    One number for a micro-batch on one worker, the same for all its images. It knows no
    label: also for those whose label was dropped.
    """

    weight: float

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """The features of the image's own prediction."""
        return {OWN: Branch(y, features=True)}

    def values(self, predicted: Predicted) -> Values:
        """Below 0, and 0 if all features are alike."""
        found = self.weight * dispersion(predicted.features[OWN].flatten(1))
        spread = found.expand(len(predicted.y))
        return Values((spread,), {"dispersive": spread})
