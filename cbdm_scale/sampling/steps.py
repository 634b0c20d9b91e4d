"""What the samplers share: which steps they take, and the image they see behind the noise.

Shapes: N = batch, C = channels, H = height, W = width, T = number of noise levels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.guidance import at_level
from cbdm_scale.sampling.options import Spacing, check_num_steps

Draw = Callable[[int], Tensor]
"""Standard normal numbers like x for the i-th step taken, i = 0 the noisiest."""


def subsequence(num_levels: int, num_steps: int) -> list[int]:
    """Evenly spaced steps t from T - 1 down to 0, both included (only T - 1 for one step)."""
    check_num_steps(num_levels, num_steps)
    if num_steps == 1:
        return [num_levels - 1]
    gap = (num_levels - 1) / (num_steps - 1)
    return [round(i * gap) for i in reversed(range(num_steps))]


def log_snr_subsequence(alpha_bar: Tensor, num_steps: int) -> list[int]:
    """Steps whose log-SNR is nearest to evenly spaced, T - 1 down to 0, no step twice.

    alpha_bar (T,). Where the levels lie wider apart than the spacing (near t = 0) every level
    is taken once, and those above make room.
    """
    num_levels = len(alpha_bar)
    check_num_steps(num_levels, num_steps)
    half_log_snr = 0.5 * torch.log(alpha_bar / (1 - alpha_bar)).cpu()  # (T,) falls with t
    wanted = torch.linspace(
        half_log_snr[-1].item(), half_log_snr[0].item(), num_steps, dtype=torch.float64
    )
    nearest = (half_log_snr.unsqueeze(0) - wanted.unsqueeze(1)).abs().argmin(dim=1)
    steps: list[int] = nearest.tolist()
    for i in reversed(range(num_steps - 1)):  # from the cleanest step up
        steps[i] = max(steps[i], steps[i + 1] + 1)
    for i in range(num_steps):
        steps[i] = min(steps[i], num_levels - 1 - i)
    return steps


def walk(
    schedule: LinearSchedule, num_steps: int, spacing: Spacing = "uniform"
) -> list[tuple[int, float, float]]:
    """(t, alpha_bar at t, alpha_bar at the next step taken) of every step; 1 after the last."""
    alpha_bar: list[float] = schedule.alpha_bar.tolist()  # syncs, once a call
    if spacing == "uniform":
        steps = subsequence(schedule.num_steps, num_steps)
    else:
        steps = log_snr_subsequence(schedule.alpha_bar, num_steps)
    levels = [alpha_bar[t] for t in steps] + [1.0]
    return list(zip(steps, levels[:-1], levels[1:], strict=True))


def predict_x0(net: Net, x: Tensor, t: int, alpha_bar: float, y: Tensor, clip: bool) -> Tensor:
    """x_0 = (x_t - sqrt(1 - alpha_bar) e) / sqrt(alpha_bar), held to [-1, 1] if clip."""
    here = torch.tensor([t])  # on the CPU
    level = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
    e = at_level(net, here)(x, level, y).to(x.dtype)
    x0: Tensor = (x - (1 - alpha_bar) ** 0.5 * e) / alpha_bar**0.5  # (N, C, H, W)
    return x0.clamp(-1, 1) if clip else x0
