"""Class-balancing loss (Equation 4, Algorithm 1).

Shapes: N = batch, M = images that the regulariser sees, C, H, W = image, K = classes
(label K means "none"), T = steps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.process import Process
from cbdm_scale.losses.draws import Draws
from cbdm_scale.losses.predict import Branch, mean_sq, predict
from cbdm_scale.losses.tcfg import TCFG


def cbdm_terms(
    e: Tensor, e_alt: Tensor, weight: Tensor, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The regulariser L_r, the commitment term L_rc and L_r + gamma L_rc of Equation 4.

    e       (M, C, H, W)  net(x_t, t, y), y the label of the image
    e_alt   (M, C, H, W)  net(x_t, t, y'), y' drawn from Y
    weight  (M,)          w(t) = tau * t / T
    Each norm is a mean over (C, H, W). The two values are equal; only the gradients differ.
    """
    r = weight * mean_sq(e - e_alt.detach())
    rc = weight * mean_sq(e.detach() - e_alt)
    return r, rc, r + gamma * rc


@dataclass(frozen=True)
class CBDMLoss:
    """L = L_DM + L_r + gamma L_rc, and with trainable guidance + L_g + L_gc; one network call.

    e' is predicted only for the images that the regulariser sees: not for those whose label
    was dropped, and for a random share of the others if `reg_share` < 1, whose weight is then
    divided by the share, so that the expectation stays.
    """

    process: Process
    null_label: int  # K
    tau: float
    gamma: float
    reg_share: float = 1.0
    tcfg: TCFG | None = None

    def __call__(self, net: Net, x0: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        t, rows = draws.t, draws.rows

        # Predict, all labels in one forward so that DDP sees a single graph.
        noisy = self.process.noisy(x0, t, draws.eps)
        y_in = y.masked_fill(draws.dropped, self.null_label)
        guide = self.tcfg.branches(y, draws) if self.tcfg else ()
        branches = [Branch(y_in), Branch(draws.y_alt[rows], rows), *guide]
        e, e_alt, *guided = predict(net, noisy, draws, branches)  # (N, C, H, W), (M, C, H, W)

        # Compare.
        dm = mean_sq(e - noisy.target)  # (N,)
        weight = self.tau * t[rows].float() / self.process.num_steps / self.reg_share  # (M,)
        r, rc, pull = (
            torch.zeros_like(dm).index_add(0, rows, term)
            for term in cbdm_terms(e[rows], e_alt, weight, self.gamma)
        )
        terms = {"total": dm + pull, "dm": dm, "r": r, "rc": rc}
        return self.tcfg.add(terms, draws, noisy.target, e, *guided) if self.tcfg else terms
