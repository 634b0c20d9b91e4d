"""Frechet distance between two sets of features (FID: Heusel et al., 2017).

The square root of a product of covariances is never formed: only its trace is needed, which
is a sum of roots of eigenvalues, or of singular values where there are few images. Float64
throughout, always real.

Mean and covariance come from sums of pieces, in any order, on any worker.

Shapes: N = images, D = feature dimensions.
"""

from math import isqrt
from typing import Self

import torch
from torch import Tensor

NOT_PSD = 1e-8
"""Negative eigenvalues up to this share of a covariance's scale are rounding."""
NOT_FINITE = "features hold non-finite numbers: look at the images they are of"


class Moments:
    """Sums over images: their number, sum f (D,), and sum f f^T (D, D), on a device.

    Images may have weights w (N,) that count alike as so many images: sum w = sum w^2
    (``reference.class_weights``). The covariance is then unbiased as without.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu"):
        self.dim = dim
        self.count: float = 0
        self.sum = torch.zeros(dim, dtype=torch.float64, device=device)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @property
    def device(self) -> torch.device:
        """Where the sums are."""
        return self.sum.device

    def add(self, features: Tensor, weights: Tensor | None = None) -> None:
        """Count the features (N, D) of N more images, each by its weight (N,) or as one."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be (N, {self.dim}), got {tuple(features.shape)}")
        f = features.detach().to(self.device, torch.float64)
        if self.device.type == "cpu" and not f.isfinite().all():  # on a GPU the sum tells later
            raise ValueError(NOT_FINITE)
        if weights is None:
            self.count += len(f)
            self.sum += f.sum(dim=0)
            self.outer += f.T @ f
            return
        weighted = f * weights.to(self.device, torch.float64)[:, None]
        self.count += float(weights.double().sum())
        self.sum += weighted.sum(dim=0)
        self.outer += weighted.T @ f

    def __add__(self, other: "Moments") -> "Moments":
        if self.dim != other.dim:
            raise ValueError(f"features of {self.dim} and of {other.dim} dimensions do not mix")
        both = Moments(self.dim, self.device)
        both.count = self.count + other.count
        both.sum = self.sum + other.sum
        both.outer = self.outer + other.outer
        return both

    def scaled(self, factor: float) -> "Moments":
        """Every image counted so many times."""
        scaled = Moments(self.dim, self.device)
        scaled.count = self.count * factor
        scaled.sum, scaled.outer = self.sum * factor, self.outer * factor
        return scaled

    def __sub__(self, part: "Moments") -> "Moments":
        """Without a part of the images."""
        if self.dim != part.dim or part.count > self.count:
            raise ValueError(
                f"{part.count} images of {part.dim} dimensions are not a part of {self.count} "
                f"of {self.dim}"
            )
        rest = Moments(self.dim, self.device)
        rest.count = self.count - part.count
        rest.sum = self.sum - part.sum
        rest.outer = self.outer - part.outer
        return rest

    @property
    def mean(self) -> Tensor:
        """Mean feature, (D,)."""
        self._need(1)
        return self.sum / self.count

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, (D, D)."""
        self._need(2)
        mean = self.mean
        return (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)

    def _need(self, num_images: int) -> None:
        if self.count < num_images:
            raise ValueError(f"needs at least {num_images} images, got {self.count}")
        if not self.sum.isfinite().all():
            raise ValueError(NOT_FINITE)

    def state(self) -> Tensor:
        """All sums as a float64 vector (1 + D + D^2,) on the CPU, to be added over workers."""
        self._need(0)
        count = torch.tensor([self.count], dtype=torch.float64)
        return torch.cat([count, self.sum.cpu(), self.outer.flatten().cpu()])

    @classmethod
    def from_state(cls, state: Tensor, device: torch.device | str = "cpu") -> Self:
        """Undo ``state``, with the sums on a device."""
        dim = (isqrt(4 * state.numel() - 3) - 1) // 2
        assert state.numel() == 1 + dim + dim * dim, "not a state of Moments"
        moments = cls(dim, device)
        flat = state.detach().to(device, torch.float64, copy=True)
        count = float(flat[0])
        moments.count = round(count) if count.is_integer() else count
        moments.sum = flat[1 : 1 + dim]
        moments.outer = flat[1 + dim :].view(dim, dim)
        return moments


def moments_of(features: Tensor, piece: int = 8192, weights: Tensor | None = None) -> Moments:
    """Moments of features (N, D), with weights (N,) or without, a piece at a time."""
    moments = Moments(features.shape[1], features.device)
    for begin in range(0, len(features), piece):
        some = slice(begin, begin + piece)
        moments.add(features[some], None if weights is None else weights[some])
    return moments


def _root(moments: Moments, side: str) -> Tensor:
    """Symmetric square root of a covariance, (D, D). An error if it is not one."""
    values, vectors = torch.linalg.eigh(moments.covariance)
    scale = float(values[-1] + moments.mean.square().sum())
    if float(values[0]) < -NOT_PSD * scale:
        raise ValueError(
            f"the covariance of the {side} side is not positive semi-definite: its smallest "
            f"eigenvalue is {float(values[0]):.3g} and its largest {float(values[-1]):.3g}. "
            "Its sums are damaged: extract the features again and add them up in float64."
        )
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def _check(sides: tuple[tuple[str, float, int], tuple[str, float, int]]) -> None:
    for side, count, _ in sides:
        if count < 2:
            raise ValueError(
                f"the Frechet distance needs at least 2 images on each side; the {side} has "
                f"{count}."
            )
    (_, _, a), (_, _, b) = sides
    if a != b:
        raise ValueError(f"features of {a} and of {b} dimensions do not compare")


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)), A and B the covariances.

    The eigenvalues of A B are those of A^(1/2) B A^(1/2), which is symmetric: the trace is
    real, also with fewer images than dimensions.
    """
    _check((("first", a.count, a.dim), ("second", b.count, b.dim)))
    return _distance(a, b, _root(a, "first"))


def _distance(a: Moments, b: Moments, root: Tensor) -> float:
    """The same, given A^(1/2)."""
    cov_a, cov_b = a.covariance, b.covariance
    product = torch.linalg.eigvalsh(root @ cov_b @ root)
    scale = float(root.square().sum() * (cov_b.trace() + b.mean.square().sum()))
    if float(product[0]) < -NOT_PSD * scale:
        raise ValueError(
            "the covariance of the second side is not positive semi-definite. Its sums are "
            "damaged: extract the features again and add them up in float64."
        )
    shared = product.clamp_min(0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared
    return max(float(distance), 0.0)  # rounding may leave -1e-12 for equal sides


class FrechetTo:
    """The Frechet distance of sets of features to one reference, prepared once.

    With at most D / 2 images on a side its features are a factor of its covariance, and the
    D x D root is not needed. Roots are found on the device of the features, singular values,
    which are small and many, on the CPU.
    """

    def __init__(self, reference: Tensor, weights: Tensor | None = None):
        """reference: features (N, D); weights (N,) as those of ``Moments``."""
        self.count, self.dim = reference.shape
        _check((("first", self.count, self.dim), ("second", 2, self.dim)))
        self.moments = self.factor = self.root = None
        if self.count <= self.dim // 2:
            self.mean, self.factor = _factor(reference, weights)
        else:
            self.moments = moments_of(reference, weights=weights)
            self.mean, self.root = self.moments.mean, _root(self.moments, "first")

    def __call__(self, features: Tensor) -> float:
        """Distance of features (M, D)."""
        _check((("first", self.count, self.dim), ("second", *features.shape)))
        if len(features) > self.dim // 2:  # singular values would cost more than roots
            return self.to_moments(moments_of(features))
        mean, factor = _factor(features)
        mine = self.factor if self.factor is not None else self.root
        assert mine is not None, "a reference has a factor or a root"
        return self._by_factors(mine, mean, factor)

    def to_moments(self, other: Moments) -> float:
        """Distance of a set that is known by its sums."""
        if self.moments is None or self.root is None:
            assert self.factor is not None
            return self._by_factors(self.factor, other.mean, _root(other, "second"))
        return _distance(self.moments, other, self.root)

    def _by_factors(self, mine: Tensor, mean: Tensor, factor: Tensor) -> float:
        """With A = F F^T and B = G G^T: tr (A B)^(1/2) = sum of singular values of F^T G."""
        mine, mean, factor, own = mine.cpu(), mean.cpu(), factor.cpu(), self.mean.cpu()
        shared = torch.linalg.svdvals(mine.T @ factor).sum()
        traces = mine.square().sum() + factor.square().sum()
        return max(float((own - mean).square().sum() + traces - 2 * shared), 0.0)


def _factor(features: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (D,) and F (D, N) with F F^T the unbiased covariance."""
    x = features.detach().to("cpu", torch.float64)
    if not x.isfinite().all():
        raise ValueError(NOT_FINITE)
    if weights is None:
        mean = x.mean(0)
        return mean, (x - mean).T / (len(x) - 1) ** 0.5
    w = weights.to("cpu", torch.float64)
    mean = w @ x / w.sum()
    return mean, (x - mean).T * (w / (w.sum() - 1)).sqrt()


def fid(real: Tensor, fake: Tensor) -> float:
    """Frechet distance of features (N, D) and (M, D); few images cost little."""
    return FrechetTo(real)(fake)
