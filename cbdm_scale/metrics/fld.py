"""Feature Likelihood Divergence (FLD: Jiralerspong et al., 2023).

Every generated image is the centre of an isotropic Gaussian,

    p(z) = (sum_j N(z; y_j, sigma_j^2 I) + N(z; 0, I)) / (M + 1),

whose variances maximise the likelihood of the training images, and

    FLD = 100 (C_0 - mean_z log p(z)) / D

over held-out images z that nobody trained on. An image that copies a training image gets a
variance of nearly 0 and explains no held-out one: novelty counts, beside fidelity and
diversity.

What is ours: features are standardised by the mean and the standard deviation of the held-out
images. The standard normal explains what no generated image is near: without it one training
image far from all would widen a Gaussian (the paper's L_i, in the fit alone), and one held-out
image far from all would decide the score. So FLD has an upper end, that of images that explain
nothing, be they noise or copies. Variances are found by expectation maximisation from the
distance to the nearest training image, where the authors take steps of Adam. C_0 makes real
images score 0: it is the same mean with held-out images in the place of the generated ones, of
one half for the other. Both sides have equally many Gaussians, since more of them explain more.
FLD compares with no published value.

Shapes: T = training images, N = held-out images, M = generated images, D = features,
G = groups.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.devices import ieee_fp32

SCALE = 100
MIN_VARIANCE = 1e-4
"""Of a Gaussian, in units of the features' variance over held-out images."""
MIN_HELD_OUT = 10
STEPS = 50
"""Of expectation maximisation, at most."""
TOLERANCE = 1e-5
"""Gain of a step in log likelihood, an image and dimension, that ends it."""
PARTS = 4
"""Of a half of the held-out images that C_0 is the mean of, at most."""
MOST = 5000
"""Images of a side, at most: of more, random ones."""


@dataclass(frozen=True)
class Standard:
    """The mean (D,) and standard deviation (D,) that features are measured by."""

    mean: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D) float32."""
        return ((x - self.mean) / self.std).float()


def standard_of(x: Tensor) -> Standard:
    """That of features (N, D); a feature that never changes counts as it is."""
    std, mean = torch.std_mean(x.detach().float(), dim=0)
    if not (mean.isfinite().all() and std.isfinite().all()):
        raise ValueError("features hold non-finite numbers: look at the images they are of")
    return Standard(mean, torch.where(std > 1e-6 * mean.abs().clamp_min(1e-6), std, 1.0))


def _square_distances(x: Tensor, centres: Tensor) -> Tensor:
    """(N, D), (M, D) -> (N, M)."""
    with ieee_fp32():
        return torch.cdist(x, centres).square_()


def _log_gaussians(squares: Tensor, variances: Tensor, dim: int) -> Tensor:
    """log N(x_i; y_j, v_j I) of squared distances (N, M) and variances (M,): (N, M)."""
    return squares * (-0.5 / variances) - 0.5 * dim * (2 * math.pi * variances).log()


def _log_standard_normal(x: Tensor) -> Tensor:
    """(N, D) -> (N,)"""
    return -0.5 * (x.square().sum(1) + x.shape[1] * math.log(2 * math.pi))


def fit_variances(train: Tensor, centres: Tensor, steps: int = STEPS) -> Tensor:
    """Variances (M,) of Gaussians around centres (M, D) that explain train (T, D) best.

    Expectation maximisation with means and weights fixed: no step lowers the likelihood. A
    Gaussian that explains nothing keeps the width that it began with.
    """
    dim, squares = train.shape[1], _square_distances(train, centres)  # (T, M)
    base = _log_standard_normal(train)
    variances = (squares.amin(0) / dim).clamp_min(MIN_VARIANCE)
    before = -math.inf
    for _ in range(steps):
        share = _log_gaussians(squares, variances, dim)
        total = torch.logaddexp(share.logsumexp(1), base)
        share.sub_(total[:, None]).exp_()  # (T, M) of image i that Gaussian j explains
        weight = share.sum(0)
        found = share.mul_(squares).sum(0) / (dim * weight.clamp_min(1e-12))
        variances = torch.where(weight > 1e-6, found.clamp_min(MIN_VARIANCE), variances)
        gain, before = float(total.double().mean()) - before, float(total.double().mean())
        if gain < TOLERANCE * dim:
            break
    return variances


def log_likelihood(
    held_out: Tensor, centres: Tensor, variances: Tensor, num_groups: int = 1
) -> tuple[float, list[float]]:
    """Mean log p over held_out (N, D), and without each group of centres in turn (G,).

    Centre j is in group j modulo G; with one group the second is empty.
    """
    logs = _log_gaussians(_square_distances(held_out, centres), variances, held_out.shape[1])
    parts = [logs[:, g::num_groups].logsumexp(1) for g in range(num_groups)]
    base = _log_standard_normal(held_out)

    def mean(some: list[Tensor], count: int) -> float:
        total = torch.stack([*some, base]).logsumexp(0)
        return float(total.double().mean()) - math.log(count + 1)

    left_out = [
        mean(parts[:g] + parts[g + 1 :], len(centres) - len(centres[g::num_groups]))
        for g in range(num_groups if num_groups > 1 else 0)
    ]
    return mean(parts, len(centres)), left_out


def _some(x: Tensor, most: int, seed: int) -> Tensor:
    if len(x) <= most:
        return x
    rng = torch.Generator().manual_seed(seed)
    return x[torch.randperm(len(x), generator=rng)[:most].to(x.device)]


class LikelihoodOf:
    """FLD of sets of generated images against one data set; C_0 is found once a number."""

    def __init__(
        self, train: Tensor, held_out: Tensor, standard: Standard | None = None, seed: int = 0
    ):
        """train (T, D), held_out (N, D); standard: where it is that of more images."""
        for side, x, least in (("training", train, 1), ("held-out", held_out, MIN_HELD_OUT)):
            if len(x) < least:
                raise ValueError(
                    f"FLD needs at least {least} {side} images, got {len(x)}. "
                    "Held-out images are those of the eval split that are not in train."
                )
        measure = standard or standard_of(held_out)
        self.measure, self.seed = measure, seed
        self.train = measure(_some(train, MOST, seed))
        self.held_out = measure(_some(held_out, MOST, seed))
        self._constants: dict[int, float] = {}

    @property
    def most(self) -> int:
        """Generated images that are looked at, at most: as many as half of the held-out."""
        return len(self.held_out) // 2

    def constant(self, num_images: int) -> float:
        """C_0: mean log p of each half of the held-out images by so many of the other.

        A half that holds several times as many is taken in parts, 4 at most.
        """
        if num_images not in self._constants:
            rng = torch.Generator().manual_seed(self.seed)
            order = torch.randperm(len(self.held_out), generator=rng)
            halves = [self.held_out[part.to(self.held_out.device)] for part in order.chunk(2)]
            found = []
            for here, there in (halves, halves[::-1]):
                for centres in there.split(num_images)[: min(PARTS, len(there) // num_images)]:
                    variances = fit_variances(self.train, centres)
                    found.append(log_likelihood(here, centres, variances)[0])
            self._constants[num_images] = sum(found) / len(found)
        return self._constants[num_images]

    def __call__(self, fake: Tensor, num_groups: int = 1) -> tuple[float, list[float]]:
        """FLD of features (M, D), and without each of some groups of them in turn, (G,).

        With one group the second is empty, with more groups than images they are as many. The
        variances are those of all images.
        """
        if len(fake) < 2:
            raise ValueError(f"FLD needs at least 2 generated images, got {len(fake)}.")
        if not fake.sum(0).isfinite().all():
            raise ValueError("generated features hold non-finite numbers: look at the images")
        centres = self.measure(_some(fake, self.most, self.seed))
        variances = fit_variances(self.train, centres)
        groups = min(num_groups, len(centres))
        mean, left_out = log_likelihood(self.held_out, centres, variances, groups)
        constant, dim = self.constant(len(centres)), self.train.shape[1]
        scores = [SCALE * (constant - value) / dim for value in (mean, *left_out)]
        return scores[0], scores[1:]


def fld(train: Tensor, held_out: Tensor, fake: Tensor, seed: int = 0) -> float:
    """FLD of generated features (M, D); train (T, D), held_out (N, D) real ones."""
    return LikelihoodOf(train, held_out, seed=seed)(fake)[0]
