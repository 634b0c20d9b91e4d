"""The real images that every set is compared with, prepared once for all of them.

Shapes: N = real images, D = features, K = classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cbdm_scale.data.groups import Group, class_groups
from cbdm_scale.metrics.fid import FrechetTo


class Reference:
    """Frechet distances to all real images and to those of a group, each prepared once.

    Those of single classes are not kept: together they would be larger than the features.
    """

    def __init__(self, x: Tensor, y: Tensor, counts: Sequence[int]):
        """x (N, D), y (N,) labels, counts (K,) of the training set, which decide the groups."""
        self.x, self.y, self.groups = x, y, class_groups(counts)
        self._known: dict[Group | None, FrechetTo] = {}

    def to(self, group: Group | None) -> FrechetTo:
        """The distance to the real images of a group; None: to all of them."""
        if group not in self._known:
            self._known[group] = FrechetTo(self.x[self._rows(group)] if group else self.x)
        return self._known[group]

    def _rows(self, group: Group) -> Tensor:
        members = torch.tensor([c for c, g in enumerate(self.groups) if g == group])
        return torch.isin(self.y, members.to(self.y.device)).to(self.x.device)
