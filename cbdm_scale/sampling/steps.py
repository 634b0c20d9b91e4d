"""What the samplers share: which steps they take, and the image they see behind the noise.

Shapes: N = batch, C = channels, H = height, W = width, T = number of noise levels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.types import Net

Draw = Callable[[int], Tensor]
"""Standard normal numbers like x for the i-th step taken, i = 0 the noisiest."""


def subsequence(num_levels: int, num_steps: int) -> list[int]:
    """Evenly spaced steps t from T - 1 down to 0, both included (only T - 1 for one step)."""
    if not 1 <= num_steps <= num_levels:
        raise ValueError(
            f"sample.num_steps ({num_steps}) must be between 1 and diffusion.num_steps "
            f"({num_levels}). Try --sample.num-steps {min(max(num_steps, 1), num_levels)}."
        )
    if num_steps == 1:
        return [num_levels - 1]
    gap = (num_levels - 1) / (num_steps - 1)
    return [round(i * gap) for i in reversed(range(num_steps))]


def walk(schedule: LinearSchedule, num_steps: int) -> list[tuple[int, float, float]]:
    """(t, alpha_bar at t, alpha_bar at the next step taken) of every step; 1 after the last."""
    steps = subsequence(schedule.num_steps, num_steps)
    alpha_bar: list[float] = schedule.alpha_bar.tolist()  # syncs, once a call
    levels = [alpha_bar[t] for t in steps] + [1.0]
    return list(zip(steps, levels[:-1], levels[1:], strict=True))


def predict_x0(net: Net, x: Tensor, t: int, alpha_bar: float, y: Tensor, clip: bool) -> Tensor:
    """x_0 = (x_t - sqrt(1 - alpha_bar) e) / sqrt(alpha_bar), held to [-1, 1] if clip."""
    level = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
    e = net(x, level, y).to(x.dtype)
    x0: Tensor = (x - (1 - alpha_bar) ** 0.5 * e) / alpha_bar**0.5  # (N, C, H, W)
    return x0.clamp(-1, 1) if clip else x0
