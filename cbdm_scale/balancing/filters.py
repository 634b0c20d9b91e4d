"""Which generated images are good enough: thresholds from real images, then verdicts.

Every threshold is a quantile of held-out real images: one that the share ``keep`` of them pass.
label: the confidence in an image's own class, at least 1/K. copies and duplicates: how near the
nearest other real image of the class is. outliers: how far the nearest training image of the
class is. A class with few held-out images takes the threshold of its group, or of all classes.

Shapes: N = images, M = training images, D = features, K = classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.balancing.options import FilterName
from cbdm_scale.metrics.neighbours import nearest

FEWEST = 20
"""Held-out images whose quantile is a class's own threshold."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What networks see in some images."""

    labels: Tensor
    """(N,) classes, or those asked for."""
    features: Tensor
    """(N, D) float32"""
    confidence: Tensor
    """(N,) float64, mean probability of the label over the classifiers."""
    predicted: Tensor
    """(N,) class of the largest mean probability."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """(K,) float64 each."""

    label: Tensor
    """Least confidence."""
    near: Tensor
    """Least distance to a training image, and to a generated one."""
    far: Tensor
    """Largest distance to the nearest training image of the class."""
    basis: tuple[str, ...]
    """Whose held-out images decide: class, group or all."""


def nearest_of_class(looks: Looks, train: Looks | None) -> Tensor:
    """Distance to the nearest training image of an image's own class, (N,) float64.

    None: to the nearest other of these images. Infinite where the class has none.
    """
    found = torch.full((len(looks.labels),), math.inf, dtype=torch.float64)
    for c in looks.labels.unique().tolist():
        mine = looks.labels == c
        queries = looks.features[mine]
        if train is None:
            if len(queries) > 1:
                found[mine] = nearest(queries, k=1).distance[:, 0]
        elif (theirs := train.labels == c).any():
            found[mine] = nearest(queries, train.features[theirs], k=1).distance[:, 0]
    return found


def choose_thresholds(
    held_out: Looks, train: Looks | None, groups: Sequence[str], keep: float
) -> Thresholds:
    """From held-out real images; ``train`` None: they are the training images themselves.

    groups: (K,) of the classes
    """
    apart = nearest_of_class(held_out, None)
    distance = apart if train is None else nearest_of_class(held_out, train)
    num = len(groups)
    label, near, far = (torch.zeros(num, dtype=torch.float64) for _ in range(3))
    basis = []
    group_of = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    of_class = torch.tensor([group_of[name] for name in groups])
    for c in range(num):
        wider = {
            "class": held_out.labels == c,
            "group": of_class[held_out.labels] == of_class[c],
            "all": torch.ones(len(held_out.labels), dtype=torch.bool),
        }
        name = next((n for n, rows in wider.items() if rows.sum() >= FEWEST), "all")
        rows = wider[name]
        basis.append(name)
        label[c] = max(_quantile(held_out.confidence[rows], 1 - keep), 1 / num)
        near[c] = _quantile(apart[rows], 1 - keep)
        far[c] = _quantile(distance[rows], keep)
    return Thresholds(label=label, near=near, far=far, basis=tuple(basis))


def unknown_classes(limits: Thresholds, need: Sequence[int]) -> list[int]:
    """Classes to be filled of which the classifier is no surer than a guess, 1/K."""
    guess = 1 / len(need)
    return [c for c, n in enumerate(need) if n and limits.label[c] <= guess]


def _quantile(values: Tensor, share: float) -> float:
    """Of the finite values; nan where there are none, which no image fails."""
    finite = values[values.isfinite()].double()
    return finite.quantile(share).item() if len(finite) else math.nan


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Of some generated images, in their order."""

    reasons: tuple[str, ...]
    """(N,) the filter that rejects an image, spare where its class is full, "" if accepted."""
    nearest: Tensor
    """(N,) position of the nearest training image."""
    distance: Tensor
    """(N,) to it."""
    class_distance: Tensor
    """(N,) to the nearest training image of the class."""
    made_distance: Tensor
    """(N,) to the nearest image of the class accepted before; infinite without one, or where
    another filter had rejected the image."""


class ImageFilter:
    """Takes one round of images after the other, and knows what it accepted before."""

    def __init__(
        self,
        thresholds: Thresholds,
        train: Looks,
        filters: Sequence[FilterName],
        need: Sequence[int],
    ) -> None:
        """need: (K,) images that each class is to get."""
        self.thresholds, self.train, self.filters, self.need = thresholds, train, filters, need
        self.count = [0] * len(need)
        """(K,) accepted so far."""
        dim = train.features.shape[1]
        self._accepted = [torch.empty(n, dim, dtype=torch.float64) for n in need]

    def __call__(self, looks: Looks) -> Verdicts:
        """Verdicts in the order of the images: of two that are alike the first stays."""
        found = nearest(looks.features, self.train.features, k=1)
        y, limits, distance = looks.labels, self.thresholds, found.distance[:, 0]
        own = nearest_of_class(looks, self.train)
        fails = {
            "label": looks.confidence < limits.label[y],
            "copies": (distance < limits.near[y]) | (distance == 0),
            "outliers": own > limits.far[y],
        }
        reasons, gaps = [], torch.full_like(distance, math.inf)
        for i, c in enumerate(y.tolist()):
            reason = next((n for n in self.filters if n in fails and fails[n][i]), "")
            num, here = self.count[c], looks.features[i].double()
            if not reason and num:
                gaps[i] = (self._accepted[c][:num] - here).norm(dim=1).min()
                near = gaps[i] < limits.near[c] or gaps[i] == 0
                reason = "duplicates" if near and "duplicates" in self.filters else ""
            if not reason and num >= self.need[c]:
                reason = "spare"
            if not reason:
                self._accepted[c][num] = here
                self.count[c] += 1
            reasons.append(reason)
        return Verdicts(
            reasons=tuple(reasons),
            nearest=found.index[:, 0],
            distance=distance,
            class_distance=own,
            made_distance=gaps,
        )


def share_passed(
    held_out: Looks, train: Looks | None, limits: Thresholds, filters: Sequence[FilterName]
) -> float:
    """Share of held-out real images that pass all filters: what a perfect generator reaches."""
    y = held_out.labels
    apart = nearest_of_class(held_out, None)
    distance = apart if train is None else nearest_of_class(held_out, train)
    good = torch.ones(len(y), dtype=torch.bool)
    if "label" in filters:
        good &= ~(held_out.confidence < limits.label[y])
    if "copies" in filters or "duplicates" in filters:
        good &= ~(apart < limits.near[y])
    if "outliers" in filters:
        good &= ~(distance > limits.far[y])
    return good.double().mean().item()
