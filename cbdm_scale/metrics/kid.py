"""Kernel Inception Distance (KID: Binkowski et al., 2018).

The squared maximum mean discrepancy under the kernel k(x, y) = (x . y / D + 1)^3, without
bias: its expectation is the same for any number of images, unlike that of FID, and negative
values are possible. ``kid`` uses every pair; ``subset_kid`` is the paper's convention, the
mean over 100 random subsets of 1,000 images.

Shapes: N = real images, M = generated images, D = features, B = resamplings.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.devices import ieee_fp32

BLOCK = 2048


@dataclass(frozen=True)
class SubsetKID:
    """Binkowski's convention."""

    mean: float
    """The distance."""

    std: float
    """Over the subsets: the spread of a subset, not the uncertainty of the mean."""


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / D + 1)^3 of every pair: (N, D), (M, D) -> (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _check(real: Tensor, fake: Tensor) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"features must be (N, D) and (M, D), got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}"
        )
    if min(len(real), len(fake)) < 2:
        raise ValueError(
            f"KID needs at least 2 images on each side, got {len(real)} real and {len(fake)} "
            "generated ones."
        )
    for side, features in (("real", real), ("generated", fake)):
        if not features.sum(0).isfinite().all():
            raise ValueError(f"{side} features hold non-finite numbers: look at the images")


def _within_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of k over all pairs of different images: x (N, D), weights (N, B) -> (B,).

    A pair counts w_i w_j; an image drawn twice makes no pair with itself.
    """
    total = torch.zeros(weights.shape[1], dtype=torch.float64, device=x.device)
    w = weights.double()
    for row in range(0, len(x), BLOCK):
        a, w_a = x[row : row + BLOCK], weights[row : row + BLOCK].to(x.dtype)
        for column in range(row, len(x), BLOCK):
            k = kernel(a, x[column : column + BLOCK])  # (R, C)
            if row == column:
                k.fill_diagonal_(0)
            w_b = weights[column : column + BLOCK].to(x.dtype)
            part = (w_a * (k @ w_b)).sum(0, dtype=torch.float64)
            total += part if row == column else 2 * part
    return total / (w.sum(0).square() - w.square().sum(0))


def _across_mean(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of k(x_i, y_j) over all x_i (N, D), for every y_j (M, D): (M,) float64."""
    means = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    for column in range(0, len(y), BLOCK):
        b = y[column : column + BLOCK]
        for row in range(0, len(x), BLOCK):
            k = kernel(x[row : row + BLOCK], b)
            part = (weights[row : row + BLOCK].to(k.dtype) * k).sum(0, dtype=torch.float64)
            means[column : column + len(b)] += part
    return means / weights.sum(dtype=torch.float64)


def kid(real: Tensor, fake: Tensor) -> float:
    """Unbiased squared MMD of features (N, D) and (M, D) over all pairs."""
    return float(weighted_kid(real, fake, torch.ones(len(fake), 1, device=fake.device))[0])


@ieee_fp32()
def weighted_kid(
    real: Tensor, fake: Tensor, weights: Tensor, of_real: Tensor | None = None
) -> Tensor:
    """KID with generated image i counted weights_i times: (M, B) -> (B,) float64.

    of_real: (N,) how often each real image counts; None: once.
    """
    _check(real, fake)
    own = torch.ones(len(real), 1) if of_real is None else of_real[:, None]
    own = own.to(real.device)
    mixed = (weights.double() * _across_mean(real, fake, own)[:, None]).sum(0)
    mixed = mixed / weights.sum(0, dtype=torch.float64)
    return _within_mean(real, own) + _within_mean(fake, weights) - 2 * mixed


def subset_kid(
    real: Tensor, fake: Tensor, num_subsets: int = 100, size: int = 1000, seed: int = 0
) -> SubsetKID:
    """Mean and standard deviation of KID over random subsets of ``size`` images a side."""
    _check(real, fake)
    if not 2 <= size <= min(len(real), len(fake)):
        raise ValueError(
            f"subsets of {size} images cannot be drawn from {len(real)} real and {len(fake)} "
            "generated ones. Take more images, a smaller size, or kid() over all pairs."
        )
    rng = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(num_subsets):
        x = real[torch.randperm(len(real), generator=rng)[:size].to(real.device)]
        y = fake[torch.randperm(len(fake), generator=rng)[:size].to(fake.device)]
        values.append(kid(x, y))
    found = torch.tensor(values, dtype=torch.float64)
    return SubsetKID(float(found.mean()), float(found.std(correction=0)))
