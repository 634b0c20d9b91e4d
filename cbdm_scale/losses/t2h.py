"""Transfer from tail to head: OC, "overlap of classes" (ICLR 2024), in its direction T2H.

What an image of a rare class is denoised to may be an image of a frequent class that is as
likely to have become this x_t: so rare classes learn from what frequent ones share with them.

Shapes: N = images of the micro-batch, C, H, W = image, K = classes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.diffusion.schedule import expand_as
from cbdm_scale.losses.term import HostDraws, Predicted, Term, Values, mean_sq


@torch.no_grad()
def posterior_draw(x0: Tensor, noise: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
    """An image z of the batch from p(z | x_t), for each image: (N,) int64.

    p(z | x_t) ~ exp(-|x_0 + sigma noise - x_0^z|^2 / 2 sigma^2), with x0, noise (N, C, H, W),
    sigma (N,) above 0 and u (N,) in (0, 1).
    """
    blurred = (x0 + expand_as(sigma, x0) * noise).flatten(1)
    # Differences, not products of matrices: at small sigma rounding would decide.
    how = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(blurred, x0.flatten(1), compute_mode=how)  # (N, N)
    logits = -distance.double().square() / (2 * sigma.square().unsqueeze(1))
    # By a product, because a GPU's cumsum has no deterministic form.
    upto = torch.ones_like(logits).triu()
    below = logits.softmax(1) @ upto < u.unsqueeze(1)
    return below.sum(1).clamp_max(len(x0) - 1)


@dataclass(frozen=True)
class T2H(Term):
    """|h - target_z|^2 - |h - target|^2, beside L_DM: so the target is that of image z.

    z is drawn from the posterior, and taken if its class has as many training images or more.
    Its target is the one at the same x_t. Zero for an image whose label was dropped. It draws
    among the images of the micro-batch on one worker.
    """

    counts: Tensor  # (K,) training images of each class
    purposes: ClassVar = ("transfer",)

    def draw(self, host: HostDraws) -> dict[str, NDArray[Any]]:
        """Which image of the posterior (N,) in (0, 1); the counts (K,)."""
        return {"transfer": host.uniform["transfer"], "counts": self.counts.numpy()}

    def values(self, predicted: Predicted) -> Values:
        """Zero where the target stays."""
        draws, x0, y = predicted.draws, predicted.x0, predicted.y
        process, target = predicted.process, predicted.noisy.target
        drawn, counts = draws.term_draws["transfer"], draws.term_draws["counts"]
        z = posterior_draw(x0, draws.eps, process.sigma(draws.t), drawn)
        slope = expand_as(process.target_slope(draws.t), x0)
        taken = target + slope * (x0[z] - x0)
        stays = draws.dropped | (counts[y[z]] < counts[y])
        moved = mean_sq(predicted.e - taken) - mean_sq(predicted.e - target)
        moved = moved.masked_fill(stays, 0)
        return Values((moved,), {"t2h": moved})
