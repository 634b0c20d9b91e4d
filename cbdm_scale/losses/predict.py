"""All predictions that an objective needs, in one network call.

Shapes: N = images of the batch, n = images of a branch, C, H, W = image, K = classes (label K
means "none").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.process import Noisy
from cbdm_scale.losses.draws import Draws


@dataclass(frozen=True)
class Branch:
    """A prediction at the x_t of some images: with which label, and which strength."""

    y: Tensor  # (n,) labels in 0..K
    rows: Tensor | None = None  # (n,) int64, of which images; None is all of them
    omega: Tensor | None = None  # (n,) guidance strength; None is "no omega"


def predict(net: Net, noisy: Noisy, draws: Draws, branches: Sequence[Branch]) -> list[Tensor]:
    """The prediction of every branch, n x (C, H, W) each, in float32.

    Branches that share x_t are one batch, so that DDP sees a single graph. The network hears of
    omega only if a branch has one; the others' rows then have 0, which is "no omega".
    """

    def of_all(v: Tensor) -> Tensor:
        parts = [v if b.rows is None else v[b.rows] for b in branches]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    x, level, y = of_all(noisy.x), of_all(noisy.level), torch.cat([b.y for b in branches])
    augment = None if draws.augment is None else of_all(draws.augment)
    if all(b.omega is None for b in branches):
        out = net(x, level, y, augment=augment)
    else:
        strengths = [x.new_zeros(len(b.y)) if b.omega is None else b.omega for b in branches]
        out = net(x, level, y, omega=torch.cat(strengths), augment=augment)
    return list(out.float().split([len(b.y) for b in branches]))


def mean_sq(x: Tensor) -> Tensor:
    """Squared norm as a mean over all axes but the first: (N, ...) -> (N,)."""
    return x.square().flatten(1).mean(1)
