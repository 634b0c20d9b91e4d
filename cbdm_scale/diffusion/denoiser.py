"""The one call that losses, samplers, guidance and backbones share."""

from typing import Protocol

from torch import Tensor


class Net(Protocol):
    """A conditional denoiser: predicts the noise eps in x, or EDM's target, (N, C, H, W).

    x        (N, C, H, W)  noisy images x_t, or c_in x
    level    (N,)          step t in 0..T-1, or c_noise = ln(sigma) / 4
    y        (N,)          labels in 0..K-1; K means "none"
    omega    (N,) or None  guidance strength; 0 or None means "no omega"
    augment  (N, 9) or None  augmentation parameters

    The backbones, where an objective asks with ``features=True``, give a tuple with their
    features second (`models.backbone`); no other caller has to know.
    """

    def __call__(
        self,
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor: ...
