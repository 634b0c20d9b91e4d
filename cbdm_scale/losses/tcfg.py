"""Trainable guidance, TCFG (Appendix C, Equations 32 and 33): one call for guided sampling.

The network is given the strength omega, and learns to predict what classifier-free guidance
makes of two predictions. omega = 0 is "no omega".

Shapes: N = batch, C, H, W = image, K = classes (label K means "none").
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.losses.term import Branch, Draws, HostDraws, Predicted, Term, Values, mean_sq


def tcfg_terms(
    e: Tensor, e_uncond: Tensor, e_omega: Tensor, eps: Tensor, omega: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """L_g of Equation 32 and its commitment term L_gc of Equation 33, (N,) each.

    e         (N, C, H, W)  net(x_t, t, y), without omega
    e_uncond  (N, C, H, W)  net(x_t, t, "none"), without omega
    e_omega   (N, C, H, W)  net(x_t, t, y, omega)
    eps       (N, C, H, W)  the noise in x_t; under EDM what the raw output should be
    omega     (N,)          guidance strength
    gamma                   weight of the commitment term, 1/4 in the paper
    Each norm is a mean over (C, H, W). Equation 33 is printed without "- eps": so it would pull
    the difference of two predictions towards a whole one (docs/paper.md, 18).
    """
    push = omega.view(-1, 1, 1, 1) * (e - e_uncond)  # omega * delta
    g = mean_sq(e_omega - push.detach() - eps)
    gc = gamma * mean_sq(e_omega.detach() - push - eps)
    return g, gc


@dataclass(frozen=True)
class TCFG(Term):
    """L_g + L_gc, beside L_DM.

    An image whose label was dropped weighs 0: e_uncond of it would be e itself, and it
    contributes the denoising loss alone.
    """

    null_label: int  # K
    gamma: float
    omega_max: float
    purposes: ClassVar = ("omega",)

    def draw(self, host: HostDraws) -> dict[str, NDArray[Any]]:
        """Strengths omega ~ U[0, omega_max]: (N,) float32."""
        return {"omega": (host.uniform["omega"] * self.omega_max).astype(np.float32)}

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """e_uncond and e_omega."""
        none, omega = torch.full_like(y, self.null_label), draws.term_draws["omega"]
        return {"none": Branch(none), "omega": Branch(y, omega=omega)}

    def values(self, predicted: Predicted) -> Values:
        """Equations 32 and 33: zero for the images whose label was dropped."""
        draws, further = predicted.draws, predicted.further
        g, gc = (
            term.masked_fill(draws.dropped, 0)
            for term in tcfg_terms(
                predicted.e,
                further["none"],
                further["omega"],
                predicted.noisy.target,
                draws.term_draws["omega"],
                self.gamma,
            )
        )
        return Values((g, gc), {"g": g, "gc": gc})
