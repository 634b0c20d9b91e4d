"""Ancestral sampling of DDPM (Ho et al., 2020, Algorithm 2), the sampler of Section 4.1.

Shapes: N = batch, C = channels, H = height, W = width, T = number of noise levels.
"""

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.options import Spacing, Variance
from cbdm_scale.sampling.steps import Draw, predict_x0, walk


@torch.no_grad()
def ancestral(
    net: Net,
    noise: Tensor,
    y: Tensor,
    *,
    schedule: LinearSchedule,
    num_steps: int | None = None,
    variance: Variance = "fixed_large",
    clip: bool = True,
    spacing: Spacing = "uniform",
    draw: Draw | None = None,
) -> Tensor:
    """Sample x_{t-1} ~ N(posterior mean given the predicted x_0, variance I) down to x_0.

    The variance is beta_t (fixed_large, the paper's) or the posterior's own (fixed_small).
    The predicted x_0 is clipped *before* it enters the mean: a clip after it does nothing to
    the path. Fewer steps than T (None: all) walk a sub-sequence, whose beta is
    1 - alpha_bar_t / alpha_bar_prev. The last step adds no noise, so ``draw`` is not called.
    """
    x = noise  # (N, C, H, W)
    count = schedule.num_steps if num_steps is None else num_steps
    for i, (t, ab, ab_prev) in enumerate(walk(schedule, count, spacing)):
        x0 = predict_x0(net, x, t, ab, y, clip)
        beta = 1 - ab / ab_prev
        x = (ab_prev**0.5 * beta * x0 + (1 - beta) ** 0.5 * (1 - ab_prev) * x) / (1 - ab)
        if ab_prev < 1:
            var = beta if variance == "fixed_large" else beta * (1 - ab_prev) / (1 - ab)
            x = x + var**0.5 * (torch.randn_like(x) if draw is None else draw(i))
    return x
