"""Denoising loss of DDPM (Equation 1), and by its process EDM's (Equation 8 there).

Shapes: N = batch, C, H, W = image.
"""

from dataclasses import dataclass

from cbdm_scale.losses.term import Predicted, Term, Values, mean_sq


@dataclass(frozen=True)
class DDPM(Term):
    """L_DM = |eps - eps_theta(x_t, y)|^2 for every image, with its label or without."""

    def values(self, predicted: Predicted) -> Values:
        """Equation 1, the norm a mean over (C, H, W)."""
        dm = mean_sq(predicted.e - predicted.noisy.target)  # (N,)
        return Values((dm,), {"dm": dm})
