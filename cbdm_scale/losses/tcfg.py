"""Trainable guidance, TCFG (Appendix C, Equations 32 and 33): one call for guided sampling.

The network is told the strength omega, and learns to answer what classifier-free guidance makes
of two predictions. omega = 0 is "no omega". Shapes: N = batch, G = images whose label was kept,
C, H, W = image, K = classes (label K means "none").
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.losses.draws import Draws
from cbdm_scale.losses.predict import Branch, mean_sq


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
    """What trainable guidance adds to an objective: two branches and two terms.

    Only for images whose label was kept: e_uncond of a dropped one would be e itself, and it
    contributes the denoising loss alone.
    """

    null_label: int  # K
    gamma: float

    def branches(self, y: Tensor, draws: Draws) -> tuple[Branch, Branch]:
        """e_uncond and e_omega; e itself is the objective's first branch."""
        rows, omega = draws.guided, draws.omega
        assert rows is not None and omega is not None, "draws of a run without loss.tcfg"
        none = torch.full_like(rows, self.null_label)
        return Branch(none, rows), Branch(y[rows], rows, omega[rows])

    def add(
        self,
        terms: dict[str, Tensor],
        draws: Draws,
        target: Tensor,
        e: Tensor,
        e_uncond: Tensor,
        e_omega: Tensor,
    ) -> dict[str, Tensor]:
        """``terms`` (N,) with L_g and L_gc in their total and beside it.

        target, e (N, C, H, W); e_uncond, e_omega (G, C, H, W).
        """
        rows, omega = draws.guided, draws.omega
        assert rows is not None and omega is not None, "draws of a run without loss.tcfg"
        g, gc = (
            torch.zeros_like(terms["total"]).index_add(0, rows, term)
            for term in tcfg_terms(
                e[rows], e_uncond, e_omega, target[rows], omega[rows], self.gamma
            )
        )
        return terms | {"total": terms["total"] + g + gc, "g": g, "gc": gc}
