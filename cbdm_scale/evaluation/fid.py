"""Frechet distance between two sets of features (FID: Heusel et al., 2017).

Shapes: D = feature dimensions.
"""

import torch
from torch import Tensor

from cbdm_scale.evaluation.moments import Moments


def _sqrtm(a: Tensor) -> Tensor:
    """Square root of a symmetric positive semi-definite matrix (D, D)."""
    values, vectors = torch.linalg.eigh(a)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)), A and B the covariances.

    The eigenvalues of A B are those of A^(1/2) B A^(1/2), which is symmetric: the trace is
    real, also with fewer images than dimensions. Float64 throughout.
    """
    for side, moments in (("first", a), ("second", b)):
        if moments.count < 2:
            raise ValueError(
                f"the Frechet distance needs at least 2 images on each side; the {side} has "
                f"{moments.count}."
            )
    if a.dim != b.dim:
        raise ValueError(f"features of {a.dim} and of {b.dim} dimensions do not compare")
    cov_a, cov_b = a.covariance, b.covariance
    root = _sqrtm(cov_a)
    shared = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared
    return max(float(distance), 0.0)  # rounding may leave -1e-12 for equal sides
