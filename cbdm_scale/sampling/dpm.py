"""DPM-Solver++(2M) (Lu et al., 2022, Algorithm 2): second order, one network call a step.

Shapes: N = batch, C = channels, H = height, W = width.
"""

import math

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.options import Spacing
from cbdm_scale.sampling.steps import predict_x0, walk


def log_snr(alpha_bar: float) -> float:
    """lambda = log(alpha / sigma) with alpha^2 = alpha_bar, sigma^2 = 1 - alpha_bar."""
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))


@torch.no_grad()
def dpm_solver(
    net: Net,
    noise: Tensor,
    y: Tensor,
    *,
    schedule: LinearSchedule,
    num_steps: int = 25,
    clip: bool = True,
    spacing: Spacing = "log_snr",
) -> Tensor:
    """Solve the flow in lambda, the predicted x_0 taken to be linear over a step and the last.

    With h = lambda_next - lambda and r = h_last / h, a step is

        D = x_0 + (x_0 - x_0 of the last step) / (2 r)
        x_next = (sigma_next / sigma) x - alpha_next (e^-h - 1) D

    The first step has no last one and takes D = x_0, which is DDIM's step. The last step goes
    to sigma = 0, where x_next = x_0. Each predicted x_0 is clipped as it is made, so that D
    mixes clipped images only; D itself may leave [-1, 1], the result cannot. Deterministic.
    Steps evenly spaced in t leave most of the path in lambda to the last few of them, and then
    it is no better than DDIM: hence log_snr.
    """
    x = noise  # (N, C, H, W)
    last: tuple[float, Tensor] | None = None  # h and x_0 of the last step
    for t, ab, ab_next in walk(schedule, num_steps, spacing):
        x0 = predict_x0(net, x, t, ab, y, clip)
        if ab_next == 1:
            return x0
        h = log_snr(ab_next) - log_snr(ab)
        d = x0 if last is None else x0 + (x0 - last[1]) * (h / (2 * last[0]))
        x = ((1 - ab_next) / (1 - ab)) ** 0.5 * x - ab_next**0.5 * math.expm1(-h) * d
        last = h, x0
    raise AssertionError("the last step goes to alpha_bar = 1")
