"""Trainable guidance, TCFG (Appendix C, Equations 32 and 33): one call for guided sampling.

The network is given the strength omega, and learns to predict what classifier-free guidance
makes of two predictions. omega = 0 is "no omega".

Shapes: N = batch, G = images whose label was kept, C, H, W = image, K = classes (label K means
"none").
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.diffusion import rng
from cbdm_scale.losses.term import Branch, Draws, Predicted, Values, mean_sq, scatter


def tcfg_terms(
    e: Tensor, e_uncond: Tensor, e_omega: Tensor, eps: Tensor, omega: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """L_g of Equation 32 and its commitment term L_gc of Equation 33, (G,) each.

    e         (G, C, H, W)  net(x_t, t, y), without omega
    e_uncond  (G, C, H, W)  net(x_t, t, "none"), without omega
    e_omega   (G, C, H, W)  net(x_t, t, y, omega)
    eps       (G, C, H, W)  the noise in x_t; under EDM what the raw output should be
    omega     (G,)          guidance strength
    gamma                   weight of the commitment term, 1/4 in the paper
    Each norm is a mean over (C, H, W). Equation 33 is printed without "- eps": so it would pull
    the difference of two predictions towards a whole one (docs/paper.md, 18).
    """
    push = omega.view(-1, 1, 1, 1) * (e - e_uncond)  # omega * delta
    g = mean_sq(e_omega - push.detach() - eps)
    gc = gamma * mean_sq(e_omega.detach() - push - eps)
    return g, gc


@dataclass(frozen=True)
class TCFG:
    """L_g + L_gc, beside L_DM.

    Only for images whose label was kept: e_uncond of a dropped one would be e itself, and it
    contributes the denoising loss alone.
    """

    null_label: int  # K
    gamma: float
    omega_max: float

    def draw(self, seed: int, images: Tensor, dropped: Tensor) -> dict[str, Tensor]:
        """Strengths omega ~ U[0, omega_max]: (N,) float32."""
        omega = rng.uniform(seed, "omega", images)[:, 0] * self.omega_max
        return {"omega": omega.float()}

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """e_uncond and e_omega of the images whose label was kept."""
        kept, omega = draws.kept, draws.term_draws["omega"]
        none = torch.full_like(kept, self.null_label)
        return {"none": Branch(none, kept), "omega": Branch(y[kept], kept, omega[kept])}

    def values(self, predicted: Predicted) -> Values:
        """Equations 32 and 33: zero for the images whose label was dropped."""
        e, kept = predicted.e, predicted.draws.kept
        g, gc = (
            scatter(term, kept, len(e))
            for term in tcfg_terms(
                e[kept],
                predicted.further["none"],
                predicted.further["omega"],
                predicted.noisy.target[kept],
                predicted.draws.term_draws["omega"][kept],
                self.gamma,
            )
        )
        return Values((g, gc), {"g": g, "gc": gc})
