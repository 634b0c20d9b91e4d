"""Scores over all classes and over the many, medium and few classes (Figure 1's question).

Shapes: N = images in a piece, D = feature dimensions, K = classes, R = images whose features
are stored.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cbdm_scale.data.groups import GROUPS, Group
from cbdm_scale.metrics.features import Features, label_hits
from cbdm_scale.metrics.fid import Moments, frechet_distance
from cbdm_scale.metrics.options import K_NEAREST
from cbdm_scale.metrics.precision_recall import ManifoldScores
from cbdm_scale.metrics.reference import LabelledFeatures, class_scale, equal_manifold


class GroupScores:
    """Feature moments by group, and per class how many images there are and look the part.

    All of it sums: over pieces, and (``state``) over workers. "All classes" is the sum of the
    groups. Features that are stored have a row each, which is 0 until its image comes.
    """

    def __init__(
        self,
        groups: tuple[Group, ...],
        dim: int,
        num_stored: int = 0,
        device: torch.device | str = "cpu",
        weigh: Sequence[int] | None = None,
    ):
        """groups: the group of each of the K classes; dim: D; num_stored: R; device: where
        moments are summed and compared; weigh: images of each class (K,) where every class is
        to count alike (``reference.class_weights``)."""
        self.groups = groups
        self.weigh = None if weigh is None else torch.tensor(weigh)
        self.dim = dim
        self.device = torch.device(device)
        self.moments = {group: Moments(dim, device) for group in GROUPS}
        self.num_images = torch.zeros(len(groups), dtype=torch.float64)  # (K,) seen
        self.classified = torch.zeros(len(groups), dtype=torch.float64)  # (K,) with logits
        self.hits = torch.zeros(len(groups), dtype=torch.float64)  # (K,) argmax = label
        self.stored = torch.zeros(num_stored, dim, dtype=torch.float64)  # (R, D)

    def add(self, features: Features, labels: Tensor, rows: Tensor | None = None) -> None:
        """Count N more images with their labels (N,). rows (N,): where to store their
        features; rows below 0 or from R on are not stored."""
        num_classes = len(self.groups)
        y = labels.detach().to("cpu", torch.int64)
        if len(y) != len(features.pool):
            raise ValueError(f"{len(features.pool)} images but {len(y)} labels")
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
            raise ValueError(
                f"labels must be in 0..{num_classes - 1}, got {int(y.min())}..{int(y.max())}"
            )
        for group in GROUPS:
            members = torch.tensor([g == group for g in self.groups])  # (K,)
            rows_of = members[y].nonzero().flatten()  # found here: a device would be waited for
            weights = None
            if self.weigh is not None:
                weights = class_scale(self.weigh[members]) / self.weigh[y[rows_of]]
            mine = features.pool[rows_of.to(features.pool.device)]
            self.moments[group].add(mine, weights)
        self.num_images += torch.bincount(y, minlength=num_classes)
        if rows is not None:
            here = (rows >= 0) & (rows < len(self.stored))
            self.stored[rows[here]] = (
                features.pool[here.to(features.pool.device)].cpu().double()
            )
        if features.logits is None:
            return
        hit = label_hits(features.logits, y, num_classes)
        self.classified += torch.bincount(y, minlength=num_classes)
        self.hits += torch.bincount(y[hit], minlength=num_classes)

    def state(self) -> Tensor:
        """Everything as one float64 vector, to be added over workers."""
        moments = [self.moments[group].state() for group in GROUPS]
        return torch.cat(
            [self.num_images, self.classified, self.hits, *moments, self.stored.flatten()]
        )

    def load(self, state: Tensor) -> None:
        """Take over a ``state``, such as the sum of those of all workers."""
        num_classes, size = len(self.groups), 1 + self.dim + self.dim**2
        sizes = [num_classes] * 3 + [size] * len(GROUPS) + [self.stored.numel()]
        assert state.shape == (sum(sizes),), "a state of the same classes and dimensions"
        flat = state.detach().to("cpu", torch.float64, copy=True)
        self.num_images, self.classified, self.hits, *moments, stored = flat.split(sizes)
        self.stored = stored.view_as(self.stored)
        self.moments = {
            g: Moments.from_state(m, self.device) for g, m in zip(GROUPS, moments, strict=True)
        }

    def total(self) -> Moments:
        """Moments over all classes."""
        parts = self.moments
        if self.weigh is not None:  # each group has a scale of its own
            parts = {group: self._rescaled(group) for group in GROUPS}
        return sum(parts.values(), Moments(self.dim, self.device))

    def _rescaled(self, group: Group) -> Moments:
        assert self.weigh is not None
        mine = self.weigh[torch.tensor([g == group for g in self.groups])]
        if not mine.any():
            return self.moments[group]
        return self.moments[group].scaled(float(class_scale(self.weigh) / class_scale(mine)))

    def label_fidelity(self) -> dict[str, float]:
        """Share of images whose largest logit is their label; no key where none has logits."""
        scores = {}
        for group in (None, *GROUPS):
            members = torch.tensor([group in (None, g) for g in self.groups])
            classified = self.classified[members].sum().item()
            if classified:
                key = f"fidelity_{group}" if group else "fidelity"
                scores[key] = self.hits[members].sum().item() / classified
        return scores


def fid_by_group(real: GroupScores, fake: GroupScores) -> dict[str, float]:
    """fid, fid_many, fid_medium, fid_few; no key for a group with fewer than 2 images."""
    assert real.groups == fake.groups, "scores of the same classes"
    scores = {"fid": frechet_distance(real.total(), fake.total())}
    for group in GROUPS:
        a, b = real.moments[group], fake.moments[group]
        if min(a.count, b.count) >= 2:
            scores[f"fid_{group}"] = frechet_distance(a, b)
    return scores


def stored_manifold(
    real: GroupScores, fake: GroupScores, labels: tuple[Tensor, Tensor], seed: int
) -> dict[Group | None, ManifoldScores]:
    """Precision and recall of the features that both sides stored, by group; None: of all.

    labels (R,) of the features of either side. Weighed by class where FID is. No key for a
    group that has too few of them.
    """
    sides = real.stored, fake.stored
    both = [
        LabelledFeatures(stored.float().to(fake.device), y)
        for stored, y in zip(sides, labels, strict=True)
    ]
    found: dict[Group | None, ManifoldScores] = {}
    for group in (None, *GROUPS):
        members = [c for c, g in enumerate(real.groups) if group in (None, g)]
        a, b = (side.of(torch.tensor(members, dtype=torch.int64)) for side in both)
        if min(len(a.x), len(b.x)) > K_NEAREST:
            found[group] = equal_manifold(a, b, weigh=real.weigh is not None, seed=seed)
    return found


def spread_rows(numbers: Tensor, num_images: int, num_stored: int) -> Tensor:
    """The row of each image (N,) when some of ``num_images`` are stored, evenly; else -1."""
    row, before = (n * num_stored // num_images for n in (numbers, numbers - 1))
    return torch.where(row != before, row, -1)


def stored_numbers(num_images: int, num_stored: int) -> Tensor:
    """The image of each stored row, (num_stored,): the inverse of ``spread_rows``."""
    return -(-torch.arange(num_stored) * num_images // max(num_stored, 1))
