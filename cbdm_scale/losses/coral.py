"""CORAL (Rodriguez et al., NeurIPS 2025, 2506.15933): features of a class are drawn together.

Shapes: N = images of the micro-batch, K = classes, T = steps.
"""

from dataclasses import dataclass

from torch import Tensor

from cbdm_scale.losses.contrast import supervised
from cbdm_scale.losses.term import OWN, Branch, Draws, Predicted, Term, Values

PROJECTION_WIDTH = 128
"""Numbers of the projection, a layer of the network in training (`models.backbone`)."""
TIME_SCALE = 0.3
"""Of the weight exp((1 - t / T) / TIME_SCALE): from 28 without noise down to 1."""


@dataclass(frozen=True)
class Coral(Term):
    """weight temperature mean_i exp((1 - t_i / T) / 0.3) SupCon, beside L_DM.

    As in the authors' code: the weight is the micro-batch's mean, SupCon a mean over images
    that have another of their class in the micro-batch on one worker, and 0 where none has.
    An image whose label was dropped is in no sum.
    """

    num_steps: int  # T; 1 where a step is its own share, as under EDM
    weight: float
    temperature: float

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """The projected features of the image's own prediction."""
        return {OWN: Branch(y, features=True)}

    def values(self, predicted: Predicted) -> Values:
        """Their mean over all N images is the loss, times the share whose label was kept."""
        assert predicted.projected, "the network lacks models.backbone.add_projection"
        draws, z = predicted.draws, predicted.projected[OWN]
        kept = ~draws.dropped
        apart, has_positive = supervised(z, predicted.y, kept, self.temperature)
        per_image = kept.sum() / has_positive.sum().clamp_min(1)
        time = ((1 - draws.t.float() / self.num_steps) / TIME_SCALE).exp().mean()
        pull = self.weight * self.temperature * time * per_image * apart
        return Values((pull,), {"coral": pull})
