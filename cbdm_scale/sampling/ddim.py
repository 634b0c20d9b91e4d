"""DDIM (Song et al., 2021, Equation 12): few steps, deterministic for eta = 0.

Shapes: N = batch, C = channels, H = height, W = width.
"""

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.options import Spacing
from cbdm_scale.sampling.steps import Draw, predict_x0, walk


@torch.no_grad()
def ddim(
    net: Net,
    noise: Tensor,
    y: Tensor,
    *,
    schedule: LinearSchedule,
    num_steps: int = 100,
    eta: float = 0.0,
    clip: bool = True,
    spacing: Spacing = "uniform",
    draw: Draw | None = None,
) -> Tensor:
    """Move along the noise direction from level to level; eta = 1 is ancestral, fixed_small.

    Where the predicted x_0 was clipped, the noise direction is the one that leads from the
    clipped x_0 to x_t, so that both still describe the same x_t.
    """
    x = noise  # (N, C, H, W)
    for i, (t, ab, ab_prev) in enumerate(walk(schedule, num_steps, spacing)):
        x0 = predict_x0(net, x, t, ab, y, clip)
        e = (x - ab**0.5 * x0) / (1 - ab) ** 0.5
        var = eta**2 * (1 - ab_prev) / (1 - ab) * (1 - ab / ab_prev)
        x = ab_prev**0.5 * x0 + max(1 - ab_prev - var, 0.0) ** 0.5 * e
        if var > 0:
            x = x + var**0.5 * (torch.randn_like(x) if draw is None else draw(i))
    return x
