"""95 % intervals: what another set of generated images from the same network would give.

The real images are the fixed reference. KID: bootstrap over the generated images. Label
fidelity: bootstrap within each class. FID: a bootstrap repeats images, which biases FID
upward; here it is computed with one of G groups of images left out in turn, subsampling
without replacement, and the spread is scaled to the whole set (the delete-a-group jackknife).

Shapes: N = real images, M = generated images, D = features, B = resamplings, K = classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.metrics.fid import FrechetTo, moments_of
from cbdm_scale.metrics.kid import weighted_kid

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float = math.nan
    """Both ends are nan where the number alone was computed."""

    high: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether the ends are there."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        ends = f" [{self.low:.4g}, {self.high:.4g}]" if self.is_known else ""
        return f"{self.value:.4g}{ends}"


def bootstrap_weights(num_images: int, draws: int, seed: int) -> Tensor:
    """How often each image is in a resampling with replacement: (num_images, B) float32."""
    rng = torch.Generator().manual_seed(seed)
    picks = torch.randint(num_images, (draws, num_images), generator=rng)
    return torch.stack([torch.bincount(p, minlength=num_images) for p in picks], 1).float()


def _percentiles(value: float, replicates: Tensor) -> Interval:
    tail = (1 - LEVEL) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = replicates.double().cpu().nanquantile(ends).tolist()
    return Interval(value, low, high)


def kid_interval(real: Tensor, fake: Tensor, draws: int = 200, seed: int = 0) -> Interval:
    """KID over all pairs (N, D), (M, D); percentiles of B resamplings, in one pass.

    A resampling that holds one image over and over has no pair, and does not count.
    """
    ones = torch.ones(len(fake), 1)
    weights = torch.cat([ones, bootstrap_weights(len(fake), draws, seed)], 1)
    values = weighted_kid(real, fake, weights.to(fake.device))
    return _percentiles(float(values[0]), values[1:])


def fidelity_interval(
    hits: Tensor, labels: Tensor, draws: int = 1000, seed: int = 0
) -> Interval:
    """Share of images that look like their label: hits (M,) bool, labels (M,).

    Resampled within each class, since the labels are chosen and not drawn. Where all images
    hit, or none, resampling shows no spread: then Wilson's interval, which knows their number.
    """
    hit = hits.bool().cpu()
    if not len(hit):
        raise ValueError("label fidelity needs at least one image")
    value = hit.double().mean().item()
    if value in (0.0, 1.0):
        return wilson(value, len(hit))
    y = labels.cpu()
    size = torch.bincount(y)  # (K,)
    share = torch.bincount(y[hit], minlength=len(size)) / size.clamp_min(1)
    rng = torch.Generator().manual_seed(seed)
    counts = size.double().expand(draws, -1)
    drawn = torch.binomial(counts, share.double().expand(draws, -1), generator=rng)
    return _percentiles(value, drawn.sum(1) / len(hit))


def wilson(share: float, n: int) -> Interval:
    """Wilson's score interval of a share of n images."""
    from scipy.stats import binomtest

    low, high = binomtest(round(share * n), n).proportion_ci(LEVEL, method="wilson")
    return Interval(share, float(low), float(high))


def _student(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))


def fid_interval(
    real: Tensor | FrechetTo, fake: Tensor, num_groups: int = 20, seed: int = 0
) -> Interval:
    """FID (N, D), (M, D) with value +- t s, s^2 = (G - 1) / G sum (FID_g - mean)^2.

    FID_g lacks group g of G random groups of generated images. It covers the expected FID at
    this number of images; the bias that FID has with few images is part of that number.
    ``real``: features, or the distance to them where it is prepared.
    """
    if not 2 <= num_groups <= len(fake) // 2:
        raise ValueError(
            f"the FID interval needs 2 groups or more and 2 images in each, got {num_groups} "
            f"groups of {len(fake)} images. Take more images."
        )
    distance = real if isinstance(real, FrechetTo) else FrechetTo(real)
    rng = torch.Generator().manual_seed(seed)
    group = torch.randperm(len(fake), generator=rng).to(fake.device) % num_groups
    if len(fake) <= fake.shape[1] // 2:  # few images: cheap as they are
        value = distance(fake)
        found = [distance(fake[group != g]) for g in range(num_groups)]
    else:
        total = moments_of(fake)
        value = distance.to_moments(total)
        found = [
            distance.to_moments(total - moments_of(fake[group == g])) for g in range(num_groups)
        ]
    left_out = torch.tensor(found, dtype=torch.float64)
    spread = ((num_groups - 1) * left_out.var(correction=0)).sqrt().item()
    half = _student(num_groups - 1) * spread
    return Interval(value, max(0.0, value - half), value + half)
