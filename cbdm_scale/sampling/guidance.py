"""Guidance turns a network into another network with the same call."""

import torch
from torch import Tensor

from cbdm_scale.types import Net


def _twice(v: Tensor | None) -> Tensor | None:
    return None if v is None else torch.cat([v, v])


def classifier_free(net: Net, omega: float, null_label: int) -> Net:
    """Push the prediction away from the unconditional one (Ho & Salimans, 2022).

        (1 + omega) e - omega e_null

    omega = 0 is plain conditional sampling, and the network itself. Papers that write w = 1
    for that case use w = 1 + omega. Costs one forward of twice the batch.
    """
    strength = omega

    def guided(
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        y_null = torch.full_like(y, null_label)
        out = net(
            torch.cat([x, x]),
            torch.cat([level, level]),
            torch.cat([y, y_null]),
            _twice(omega),
            _twice(augment),
        )
        e, e_null = out.chunk(2)  # 2 x (N, C, H, W)
        return e + strength * (e - e_null)

    return guided if strength else net
