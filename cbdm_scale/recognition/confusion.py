"""Precision and recall of a classifier, over all classes and by group (Table 4).

Everything follows from one table of counts, which sums over pieces and over workers.
Shapes: N = images, K = classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.data.groups import GROUPS, Group

SCORES = "precision", "recall", "accuracy"


@dataclass(frozen=True, kw_only=True)
class ClassificationScores:
    """Macro averages: every class counts the same, however many images it has."""

    classes: int
    """How many are averaged: those with images to test on."""

    precision: float
    """Mean over classes of the share of right ones among the images taken for the class.

    It is 0 for a class that no image was taken for, as in scikit-learn.
    """

    recall: float
    """Mean over classes of the share of the class's images that were recognised."""

    accuracy: float
    """Share of the images of these classes that were recognised."""

    never_predicted: int
    """Classes that no image was taken for."""


def confusion(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """How many images of class i were taken for class j: labels (N,), predicted (N,) -> (K, K).

    int64, on the CPU.
    """
    y, found = labels.cpu().long(), predicted.cpu().long()
    counts = torch.bincount(y * num_classes + found, minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


def class_precision(table: Tensor) -> Tensor:
    """Of the images taken for a class, the share of right ones: (K, K) -> (K,), nan if none."""
    return table.diagonal().double() / table.sum(dim=0)


def class_recall(table: Tensor) -> Tensor:
    """Of a class's images, the share that was recognised: (K, K) -> (K,), nan if none."""
    return table.diagonal().double() / table.sum(dim=1)


def macro_scores(table: Tensor, members: Tensor | None = None) -> ClassificationScores | None:
    """The scores of some classes, (K,) bool, or of all; None if none of them has test images.

    Precision counts the images of all classes that were taken for one of these.
    """
    chosen = table.sum(dim=1) > 0
    if members is not None:
        chosen &= members
    if not chosen.any():
        return None
    precision = class_precision(table)[chosen]
    return ClassificationScores(
        classes=int(chosen.sum()),
        precision=precision.nan_to_num(0).mean().item(),
        recall=class_recall(table)[chosen].mean().item(),
        accuracy=(table.diagonal()[chosen].sum() / table[chosen].sum()).item(),
        never_predicted=int(precision.isnan().sum()),
    )


def scores_by_group(table: Tensor, groups: Sequence[Group]) -> dict[str, ClassificationScores]:
    """The scores of "all" classes and of many, medium and few; no key without test images."""
    scores: dict[str, ClassificationScores] = {}
    for name in ("all", *GROUPS):
        found = macro_scores(table, torch.tensor([name in ("all", g) for g in groups]))
        if found is not None:
            scores[name] = found
    return scores


def group_confusion(table: Tensor, groups: Sequence[Group]) -> dict[str, dict[str, float]]:
    """Of a group's images, the share taken for each group: which way the tail gets lost.

    No key for a group without test images.
    """
    member = torch.tensor([[name == g for g in groups] for name in GROUPS]).double()  # (3, K)
    counts = member @ table.double() @ member.T
    return {
        name: {other: (counts[i, j] / counts[i].sum()).item() for j, other in enumerate(GROUPS)}
        for i, name in enumerate(GROUPS)
        if counts[i].sum()
    }


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A score over seeds."""

    mean: float
    half_range: float
    """Half of the largest less the smallest; 0 for one seed."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of the values of all seeds, one or more."""
        return cls(mean=sum(values) / len(values), half_range=(max(values) - min(values)) / 2)


def scores_over_seeds(
    tables: Sequence[Tensor], groups: Sequence[Group]
) -> dict[str, dict[str, Spread]]:
    """Precision, recall and accuracy of "all", many, medium and few: mean and spread.

    ``tables`` are the confusions of one and the same test set, one a seed.
    """
    scores = [scores_by_group(table, groups) for table in tables]
    return {
        name: {
            score: Spread.of([getattr(seed[name], score) for seed in scores])
            for score in SCORES
        }
        for name in scores[0]
    }
