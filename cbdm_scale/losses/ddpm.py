"""Denoising loss of DDPM (Equation 1), and by its process EDM's (Equation 8 there).

Shapes: N = batch, C, H, W = image, K = classes.
"""

from dataclasses import dataclass

from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.process import Process
from cbdm_scale.losses.draws import Draws
from cbdm_scale.losses.predict import Branch, mean_sq, predict
from cbdm_scale.losses.tcfg import TCFG


@dataclass(frozen=True)
class DDPMLoss:
    """L = L_DM, and with trainable guidance L_DM + L_g + L_gc."""

    process: Process
    null_label: int  # K
    tcfg: TCFG | None = None

    def __call__(self, net: Net, x0: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        noisy = self.process.noisy(x0, draws.t, draws.eps)
        y_in = y.masked_fill(draws.dropped, self.null_label)
        guide = self.tcfg.branches(y, draws) if self.tcfg else ()
        e, *guided = predict(net, noisy, draws, [Branch(y_in), *guide])
        dm = mean_sq(e - noisy.target)
        terms = {"total": dm, "dm": dm}
        return self.tcfg.add(terms, draws, noisy.target, e, *guided) if self.tcfg else terms
