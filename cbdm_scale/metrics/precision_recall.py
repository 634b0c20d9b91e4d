"""Improved precision and recall (Kynkaanniemi et al., 2019), density and coverage (Naeem et
al., 2020), with k = 5 (Section 4.1); the two papers themselves use 3 and 5.

A set of images is described by balls: around every image, up to its k-th nearest neighbour.
One pass over the distances of real and generated images serves all four.

Shapes: N = real images, M = generated images, D = features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.metrics.neighbours import Screen, nearest, within
from cbdm_scale.metrics.options import K_NEAREST


@dataclass(frozen=True)
class ManifoldScores:
    """How the generated images lie among the real ones, and the real among the generated."""

    precision: float
    """Share of generated images in the ball of some real image."""

    recall: float
    """Share of real images in the ball of some generated image."""

    density: float
    """Real balls that a generated image lies in, on average, over k; may exceed 1."""

    coverage: float
    """Share of real images with a generated image in their ball."""

    num_real: int
    """Real images, of which recall and coverage are shares."""


def ball_radius(features: Tensor, k: int = K_NEAREST, *, screen: Screen = None) -> Tensor:
    """Distance of each image to its k-th nearest other one: (N, D) -> (N,) float64."""
    return nearest(features, k=k, screen=screen).distance[:, -1]


def manifold_scores(
    real: Tensor,
    fake: Tensor,
    k: int = K_NEAREST,
    *,
    screen: Screen = None,
    weights: Tensor | None = None,
) -> ManifoldScores:
    """All four scores of real (N, D) and generated features (M, D).

    weights (N,): how much each real image counts in recall and coverage; None: alike.
    """
    for side, features in (("real", real), ("generated", fake)):
        if len(features) <= k:
            raise ValueError(
                f"precision and recall with k = {k} need more than {k} images on each side; "
                f"there are {len(features)} {side} ones. Take more images or a smaller k."
            )
    in_real = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    in_fake = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    covered = torch.zeros_like(in_fake)
    num_hits = 0
    radius_real = ball_radius(real, k, screen=screen)
    radius_fake = ball_radius(fake, k, screen=screen)
    for by_real, by_fake in within(real, fake, radius_real, radius_fake, screen=screen):
        i, j = by_real
        covered[i], in_real[j] = True, True
        num_hits += len(i)
        in_fake[by_fake[0]] = True

    def share(of_real: Tensor) -> float:
        if weights is None:
            return of_real.double().mean().item()
        w = weights.to(of_real.device, torch.float64)
        return float((w * of_real).sum() / w.sum())

    return ManifoldScores(
        precision=in_real.double().mean().item(),
        recall=share(in_fake),
        density=num_hits / (k * len(fake)),
        coverage=share(covered),
        num_real=len(real),
    )
