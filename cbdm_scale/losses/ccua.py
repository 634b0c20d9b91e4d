"""CCUA (2507.09052): the predictions with and without label are aligned.

Shapes: N = images, C, H, W = image, K = classes (label K means "none"), T = steps.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.losses.term import Branch, Draws, HostDraws, Predicted, Values, mean_sq


@dataclass(frozen=True)
class Alignment:
    """weight t / T |h - h_none|^2 beside L_DM, with a gradient on both sides.

    Zero for an image whose label was dropped: h is h_none there.
    """

    num_steps: int  # T; 1 where a step is its own share, as under EDM
    null_label: int  # K
    weight: float
    purposes: ClassVar = ()

    def draw(self, host: HostDraws) -> dict[str, NDArray[Any]]:
        """Nothing."""
        return {}

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """h_none, which TCFG wants too."""
        return {"none": Branch(torch.full_like(y, self.null_label))}

    def values(self, predicted: Predicted) -> Values:
        """At noisy steps, where the label decides what is drawn, more."""
        weight = self.weight * predicted.draws.t.float() / self.num_steps  # (N,)
        pull = weight * mean_sq(predicted.e - predicted.further["none"])
        pull = pull.masked_fill(predicted.draws.dropped, 0)
        return Values((pull,), {"ccua_align": pull})
