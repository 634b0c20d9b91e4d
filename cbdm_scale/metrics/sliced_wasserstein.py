"""Sliced Wasserstein distance of two sets of features, as MIND has it (Berthet et al., 2026).

    MIND = 3 D / P  sum_p W_2^2(u_p . x, u_p . y)

over P random unit vectors u_p. W_2 of two sets of numbers is exact: both are sorted and
matched by quantiles, also where they hold different numbers of images. The factor 3 D brings it
near the scale of FID. No covariance is estimated, so that it means something with a few dozen
images. It is still biased upward by few images on either side: read it beside its floor, what
as many real images score.

Features are taken as they are, without normalisation; the directions depend on the seed and D
alone, so that sets are compared along the same ones.

Shapes: N = real images, M = generated images, D = features, P = projections, S = steps.
"""

import numpy as np
import torch
from torch import Tensor

from cbdm_scale.devices import ieee_fp32

NUM_PROJECTIONS = 1000
FACTOR = 3
BLOCK = 1 << 21
"""Numbers of a block of projections."""


def directions(dim: int, number: int = NUM_PROJECTIONS, seed: int = 0) -> Tensor:
    """Random unit vectors, (P, D) float32 on the CPU."""
    rng = torch.Generator().manual_seed(seed)
    u = torch.randn(number, dim, generator=rng, dtype=torch.float64)
    unit: Tensor = u / u.norm(dim=1, keepdim=True)
    return unit.float()


def quantile_steps(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """The optimal coupling of n and m sorted numbers: rows i (S,), j (S,), their mass (S,)."""
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1 / n m
    begins = np.concatenate([[0], ends[:-1]])
    mass = (ends - begins) / (n * m)
    return torch.from_numpy(begins // m), torch.from_numpy(begins // n), torch.from_numpy(mass)


def _sorted(x: Tensor) -> Tensor:
    """(P, N) sorted along the rows; numpy's is the faster one on CPUs."""
    if x.device.type == "cpu":
        return torch.from_numpy(np.sort(x.numpy(), axis=1))
    return x.sort(dim=1).values


def _square_gap(own: Tensor, shares: Tensor, other: Tensor) -> Tensor:
    """W_2^2 along the rows of (P, N) and (P, M), sorted: (P,) float64.

    shares (P, N): up to which share of the mass the first side's numbers reach; those of the
    second have 1 / M each.
    """
    n, m = own.shape[1], other.shape[1]
    even = torch.arange(1, m + 1, dtype=torch.float64, device=own.device) / m
    ends = torch.cat([shares, even.expand(len(own), -1)], 1).sort(1).values
    begins = torch.nn.functional.pad(ends, (1, 0))[:, :-1]
    middle = (begins + ends) / 2
    i = torch.searchsorted(shares, middle).clamp_max(n - 1)
    j = (middle * m).long().clamp_max(m - 1)
    gap = (own.gather(1, i) - other.gather(1, j)).double()
    square: Tensor = (gap.square() * (ends - begins)).sum(1)
    return square


class SlicedTo:
    """The sliced distance of sets of features to one reference, which is projected once."""

    def __init__(
        self,
        reference: Tensor,
        num_projections: int = NUM_PROJECTIONS,
        seed: int = 0,
        weights: Tensor | None = None,
    ):
        """reference: features (N, D), 2 images or more; weights (N,) of them, None: alike."""
        self.count, self.dim = reference.shape
        self.directions = directions(self.dim, num_projections, seed).to(reference.device)
        projected = self._project(reference, "real", num_projections)
        self.shares: Tensor | None = None
        if weights is None:
            self.sorted = _sorted(projected)
        else:
            self.sorted, order = projected.sort(dim=1)
            shares = weights.to(reference.device, torch.float64)[order].cumsum(1)
            self.shares = shares / shares[:, -1:]

    @ieee_fp32()
    def _project(self, x: Tensor, side: str, most: int) -> Tensor:
        """(N, D) -> (P, N), by the first so many directions."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"features must be (M, {self.dim}), got {tuple(x.shape)}")
        if len(x) < 2:
            raise ValueError(
                "the sliced Wasserstein distance needs at least 2 images on each side, got "
                f"{len(x)} {side} ones."
            )
        if not x.sum(0).isfinite().all():
            raise ValueError(f"{side} features hold non-finite numbers: look at the images")
        return self.directions[:most] @ x.detach().float().T

    def __call__(self, features: Tensor, most: int | None = None) -> float:
        """MIND of features (M, D), by the first so many projections, None: by all."""
        number = min(most or len(self.sorted), len(self.sorted))
        own, other = self.sorted[:number], _sorted(self._project(features, "generated", number))
        size = max(1, BLOCK // (own.shape[1] + other.shape[1]))
        blocks = [slice(begin, begin + size) for begin in range(0, number, size)]
        total = 0.0
        if self.shares is not None:
            shares = self.shares[:number]
            for some in blocks:
                total += float(_square_gap(own[some], shares[some], other[some]).sum())
        else:
            i, j, mass = (x.to(own.device) for x in quantile_steps(self.count, len(features)))
            for some in blocks:
                gap = (own[some][:, i] - other[some][:, j]).double()
                total += float((gap.square() @ mass).sum())
        return FACTOR * self.dim * total / number


def sliced_wasserstein(
    real: Tensor, fake: Tensor, num_projections: int = NUM_PROJECTIONS, seed: int = 0
) -> float:
    """MIND of features (N, D) and (M, D)."""
    return SlicedTo(real, num_projections, seed)(fake)
