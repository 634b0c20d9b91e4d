"""Second stage of TCFG: a trained network's guidance by one prediction, distilled.

Meng et al., "On Distillation of Guided Diffusion Models" (CVPR 2023), stage one: the student is
given the strength omega, and learns what its frozen teacher makes of two predictions.

Shapes: N = images of the micro-batch, C, H, W = image, K = classes (label K means "none").
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.schedule import expand_as
from cbdm_scale.losses.objective import predict
from cbdm_scale.losses.term import (
    OWN,
    Branch,
    Draws,
    HostDraws,
    Predicted,
    Term,
    Values,
    mean_sq,
)

UNGUIDED_SHARE = 0.1
"""Of the images that have omega 0, besides those whose label was dropped: so the student stays
its teacher without guidance."""


def distillation_terms(
    e_omega: Tensor, e: Tensor, e_uncond: Tensor, omega: Tensor
) -> tuple[Tensor, Tensor]:
    """|e_omega - (e + omega (e - e_uncond))|^2 and |omega (e - e_uncond)|^2, (N,) each.

    e_omega   (N, C, H, W)  student(x_t, t, y, omega)
    e         (N, C, H, W)  teacher(x_t, t, y)
    e_uncond  (N, C, H, W)  teacher(x_t, t, "none")
    omega     (N,)          guidance strength
    Each norm is a mean over (C, H, W). The second is what the student has to add: the first
    over it is the share of the guidance that is missing.
    """
    push = expand_as(omega, e) * (e - e_uncond)
    return mean_sq(e_omega - (e + push)), mean_sq(push)


@dataclass(frozen=True)
class Distillation(Term):
    """The whole objective of a second stage: it has no denoising loss, which the teacher had.

    An image whose label was dropped learns the teacher's prediction without label, so that the
    student can be guided by two predictions too.
    """

    teacher: Net  # frozen, without dropout
    null_label: int  # K
    omega_max: float
    purposes: ClassVar = ("omega",)

    def draw(self, host: HostDraws) -> dict[str, NDArray[Any]]:
        """Strengths (N,) float32: 0 of a share and without label, else ~ U[0, omega_max]."""
        above = np.maximum(host.uniform["omega"] - UNGUIDED_SHARE, 0) / (1 - UNGUIDED_SHARE)
        omega = np.where(host.dropped, 0, self.omega_max * above)
        return {"omega": omega.astype(np.float32)}

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """The image's own prediction, at its strength."""
        return {OWN: Branch(y, omega=draws.term_draws["omega"])}

    def values(self, predicted: Predicted) -> Values:
        """The teacher answers twice, in one batch and without a gradient."""
        draws, y = predicted.draws, predicted.y
        none = torch.full_like(y, self.null_label)
        asked = [Branch(torch.where(draws.dropped, none, y)), Branch(none)]
        with torch.no_grad():
            [(e, e_uncond)] = predict(self.teacher, predicted.noisy, draws.augment, asked)
        distance, push = distillation_terms(predicted.e, e, e_uncond, draws.term_draws["omega"])
        return Values((distance,), {"distil": distance, "push": push})
