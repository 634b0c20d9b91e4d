"""CCUA (2507.09052): an unconditional prediction that is spread, and a conditional one near it.

Shapes: N = images of the micro-batch, C, H, W = image, K = classes (label K means "none"), T =
steps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.losses.contrast import repulsion
from cbdm_scale.losses.term import Branch, Draws, Predicted, Term, Values, mean_sq

TEMPERATURE = 0.1
"""Of the contrast; the paper names none, and this is the usual one."""


@dataclass(frozen=True)
class Alignment(Term):
    """weight t / T |h - h_none|^2 beside L_DM, with a gradient on both sides.

    Zero for an image whose label was dropped: h is h_none there.
    """

    num_steps: int  # T; 1 where a step is its own share, as under EDM
    null_label: int  # K
    weight: float

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """h_none, which TCFG wants too."""
        return {"none": Branch(torch.full_like(y, self.null_label))}

    def values(self, predicted: Predicted) -> Values:
        """At noisy steps, where the label decides what is drawn, more."""
        weight = self.weight * predicted.draws.t.float() / self.num_steps  # (N,)
        pull = weight * mean_sq(predicted.e - predicted.further["none"])
        pull = pull.masked_fill(predicted.draws.dropped, 0)
        return Values((pull,), {"ccua_align": pull})


@dataclass(frozen=True)
class Contrast(Term):
    """weight t / T InfoNCE of the features without label, beside L_DM (UCL in the paper).

    An image's features are their own positive, those of the others of the micro-batch on one
    worker the negatives: they are pushed apart. Zero for an image whose label was dropped,
    which still is a negative of the others, and for one that is alone.
    """

    num_steps: int  # T
    null_label: int  # K
    weight: float

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """The features of h_none."""
        return {"none": Branch(torch.full_like(y, self.null_label), features=True)}

    def values(self, predicted: Predicted) -> Values:
        """As the alignment, more at noisy steps."""
        weight = self.weight * predicted.draws.t.float() / self.num_steps  # (N,)
        push = weight * repulsion(predicted.features["none"].flatten(1), TEMPERATURE)
        push = push.masked_fill(predicted.draws.dropped, 0)
        return Values((push,), {"ccua_contrast": push})
