"""Denoising loss of DDPM (Equation 1), and by its process EDM's (Equation 8 there).

Shapes: N = batch, C, H, W = image.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.losses.term import Branch, Draws, HostDraws, Predicted, Values, mean_sq


@dataclass(frozen=True)
class DDPM:
    """L_DM = |eps - eps_theta(x_t, y)|^2 for every image, with its label or without."""

    purposes: ClassVar = ()

    def draw(self, host: HostDraws) -> dict[str, NDArray[Any]]:
        """Nothing: step, noise and dropped labels belong to every objective."""
        return {}

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """Nothing beyond the image's own prediction."""
        return {}

    def values(self, predicted: Predicted) -> Values:
        """Equation 1, the norm a mean over (C, H, W)."""
        dm = mean_sq(predicted.e - predicted.noisy.target)  # (N,)
        return Values((dm,), {"dm": dm})
