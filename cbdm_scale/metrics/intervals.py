"""95 % intervals: what another set of generated images from the same network would give.

The real images are the fixed reference. KID: bootstrap over the generated images. Label
fidelity: bootstrap within each class. FID, the sliced Wasserstein distance and FLD: a bootstrap
repeats images, which biases them; they are computed with one of G groups of images left out in
turn, subsampling without replacement, and the spread is scaled to the whole set (the
delete-a-group jackknife).

Shapes: N = real images, M = generated images, D = features, B = resamplings, K = classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.metrics.fid import FrechetTo, moments_of
from cbdm_scale.metrics.fld import LikelihoodOf
from cbdm_scale.metrics.kid import weighted_kid
from cbdm_scale.metrics.sliced_wasserstein import SlicedTo

LEVEL = 0.95
SPREAD_PROJECTIONS = 100
"""Of the sliced distance, whose spread over images needs fewer than its value."""


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


def kid_interval(
    real: Tensor,
    fake: Tensor,
    draws: int = 200,
    seed: int = 0,
    of_real: Tensor | None = None,
) -> Interval:
    """KID over all pairs (N, D), (M, D); percentiles of B resamplings, in one pass.

    A resampling that holds one image over and over has no pair, and does not count. Without
    draws there are no ends, nor of 2 images, whose only pair shows no spread.
    of_real: (N,) how often each real image counts; None: once.
    """
    weights = torch.ones(len(fake), 1)
    spreads = draws > 0 and len(fake) > 2
    if spreads:
        weights = torch.cat([weights, bootstrap_weights(len(fake), draws, seed)], 1)
    values = weighted_kid(real, fake, weights.to(fake.device), of_real)
    value = float(values[0])
    return _percentiles(value, values[1:]) if spreads else Interval(value)


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


def _jackknife(value: float, left_out: Sequence[float], least: float = -math.inf) -> Interval:
    """value +- t s, s^2 = (G - 1) / G sum (v_g - mean)^2 of values without a group (G,)."""
    num_groups = len(left_out)
    found = torch.tensor(left_out, dtype=torch.float64)
    spread = ((num_groups - 1) * found.var(correction=0)).sqrt().item()
    half = _student(num_groups - 1) * spread
    return Interval(value, max(least, value - half), value + half)


def fid_interval(
    real: Tensor | FrechetTo, fake: Tensor, num_groups: int = 20, seed: int = 0
) -> Interval:
    """FID (N, D), (M, D) with its jackknife over G random groups of generated images.

    It covers the expected FID at this number of images; the bias that FID has with few images
    is part of that number. ``real``: features, or the distance to them where it is prepared.
    num_groups 0: the number alone.
    """
    distance = real if isinstance(real, FrechetTo) else FrechetTo(real)
    if not num_groups:
        return Interval(distance(fake))
    if not 2 <= num_groups <= len(fake) // 2:
        raise ValueError(
            f"the FID interval needs 2 groups or more and 2 images in each, got {num_groups} "
            f"groups of {len(fake)} images. Take more images."
        )
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
    return _jackknife(value, found, least=0.0)


def sliced_interval(
    to: SlicedTo, fake: Tensor, num_groups: int = 20, seed: int = 0
) -> Interval:
    """The sliced Wasserstein distance of features (M, D), and its jackknife.

    Of fewer than 2 G images there are fewer groups, below 4 none, and no ends.
    """
    value, groups = to(fake), min(num_groups, len(fake) // 2)
    if groups < 2:
        return Interval(value)
    rng = torch.Generator().manual_seed(seed)
    group = torch.randperm(len(fake), generator=rng).to(fake.device) % groups
    found = [to(fake[group != g], SPREAD_PROJECTIONS) for g in range(groups)]
    return _jackknife(value, found, least=0.0)


def fld_interval(to: LikelihoodOf, fake: Tensor, num_groups: int = 20) -> Interval:
    """FLD of features (M, D), and its jackknife; no ends with fewer than 2 groups."""
    value, left_out = to(fake, max(num_groups, 1))
    return _jackknife(value, left_out) if len(left_out) > 1 else Interval(value)


def mean_interval(found: Sequence[Interval]) -> Interval:
    """The mean of numbers of classes, drawn independently; ends where all have them."""
    value = sum(one.value for one in found) / len(found)
    if not all(one.is_known for one in found):
        return Interval(value)
    half = sum(((one.high - one.low) / 2) ** 2 for one in found) ** 0.5 / len(found)
    return Interval(value, value - half, value + half)
