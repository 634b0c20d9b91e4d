"""Precision and recall of distributions (PRD: Sajjadi et al., 2018): F_8 and F_1/8.

Real and generated images are clustered together, 20 clusters a class (Section 4.1), and the
two histograms over the clusters compared along 1,001 angles. F_8 weighs recall (diversity),
F_1/8 precision (fidelity). The curve is averaged over 10 seeded clusterings, and F taken from
it. Both sides hold equally many images; clusters are capped at a tenth of that number, and a
number with a cap does not compare with one without.

Clusters are those of k-means++ (Arthur and Vassilvitskii, 2007), then mini-batches (Sculley,
2010), seeded: the same features and seed give the same ones.

Shapes: N = images a side, D = features, K = clusters, A = angles, Q = candidates for the first
centres.
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from cbdm_scale.devices import ieee_fp32

CLUSTERS_PER_CLASS = 20
NUM_ANGLES = 1001
NUM_RUNS = 10
BATCH, STEPS = 1024, 100
"""Of k-means."""
BLOCK = 4096
CANDIDATES = 2048  # at least, for the first centres


@dataclass(frozen=True)
class PRD:
    """The curve and its two F scores."""

    precision: Tensor
    """(A,) float64, along the angles."""

    recall: Tensor
    """(A,)"""

    num_images: int
    """On each side."""

    num_clusters: int
    wanted_clusters: int
    """20 a class."""

    @property
    def capped(self) -> bool:
        """Whether there were too few images for 20 clusters a class."""
        return self.num_clusters < self.wanted_clusters

    @property
    def f8(self) -> float:
        """Diversity: recall weighs 8 times as much as precision."""
        return f_beta(self.precision, self.recall, 8)

    @property
    def f_eighth(self) -> float:
        """F_1/8, fidelity: precision weighs 8 times as much as recall."""
        return f_beta(self.precision, self.recall, 1 / 8)

    def note(self) -> str:
        """What a reader of the scores must know."""
        about = f"{self.num_clusters:,} clusters of {self.num_images:,} images a side"
        if not self.capped:
            return about
        return (
            f"{about}: capped at a tenth of the images, 20 a class would be "
            f"{self.wanted_clusters:,}. Not comparable with other numbers of images"
        )


def f_beta(precision: Tensor, recall: Tensor, beta: float) -> float:
    """The largest F_beta = (1 + b^2) P R / (b^2 P + R) along a curve (A,)."""
    below = beta**2 * precision + recall
    scores = (1 + beta**2) * precision * recall / below.clamp_min(1e-12)
    return float(scores.max())


def prd_curve(
    real: Tensor, fake: Tensor, num_angles: int = NUM_ANGLES
) -> tuple[Tensor, Tensor]:
    """Precision and recall (A,) of two histograms (K,) that each sum to 1.

    Slope l = tan(angle), angles evenly over (0, pi / 2): precision sum min(l real, fake),
    recall sum min(real, fake / l).
    """
    angles = torch.linspace(1e-10, pi / 2 - 1e-10, num_angles, dtype=torch.float64)
    slope = angles.tan()[:, None]
    precision = torch.minimum(slope * real.double(), fake.double()).sum(1).clamp(0, 1)
    recall = torch.minimum(real.double(), fake.double() / slope).sum(1).clamp(0, 1)
    return precision, recall


@ieee_fp32()
def prd(
    real: Tensor,
    fake: Tensor,
    num_classes: int,
    num_runs: int = NUM_RUNS,
    seed: int = 0,
    weights: Tensor | None = None,
) -> PRD:
    """The averaged curve of real (N, D) and generated features (M, D).

    weights (N,): how much each real image counts in its histogram; None: alike.
    """
    n = min(len(real), len(fake))
    wanted = CLUSTERS_PER_CLASS * num_classes
    num_clusters = min(wanted, n // 10)
    if num_clusters < 2:
        raise ValueError(
            f"PRD needs at least 20 images on each side, for 2 clusters; got {len(real)} real "
            f"and {len(fake)} generated ones."
        )
    rng = torch.Generator().manual_seed(seed)
    rows = [_subsample(len(side), n, rng) for side in (real, fake)]
    both = torch.cat(
        [
            side[some.to(side.device)].float()
            for side, some in zip((real, fake), rows, strict=True)
        ]
    )
    counted = None if weights is None else weights[rows[0]].double()
    mean = both.mean(0)
    if not mean.isfinite().all():
        raise ValueError("features hold non-finite numbers: look at the images they are of")
    both -= mean
    precision = recall = torch.zeros(NUM_ANGLES, dtype=torch.float64)
    for run in range(num_runs):
        labels = nearest_centre(both, kmeans(both, num_clusters, seed * num_runs + run))
        shares = [torch.bincount(y, minlength=num_clusters).cpu() / n for y in labels.split(n)]
        if counted is not None:
            shares[0] = torch.bincount(labels[:n].cpu(), counted, num_clusters) / counted.sum()
        p, r = prd_curve(shares[0], shares[1])
        precision, recall = precision + p / num_runs, recall + r / num_runs
    return PRD(precision, recall, n, num_clusters, wanted)


def _subsample(count: int, n: int, rng: torch.Generator) -> Tensor:
    """Rows of n of the images at random, of all of them in order if there are no more."""
    return torch.arange(n) if count == n else torch.randperm(count, generator=rng)[:n]


def nearest_centre(x: Tensor, centres: Tensor) -> Tensor:
    """Cluster of each image: (N, D), (K, D) -> (N,) int64."""
    square = centres.square().sum(1) / 2
    labels = torch.empty(len(x), dtype=torch.int64, device=x.device)
    for begin in range(0, len(x), BLOCK):
        block = slice(begin, begin + BLOCK)
        labels[block] = torch.addmm(square, x[block], centres.T, alpha=-1).argmin(1)
    return labels


def first_centres(x: Tensor, num_clusters: int, rng: torch.Generator) -> Tensor:
    """k-means++ among candidates (Q, D): each next centre far from those before, (K, D)."""
    square = x.square().sum(1)
    distance = (square[:, None] + square - 2 * x @ x.T).clamp_min(0)  # (Q, Q)
    # All drawn before, and each chosen on the device: nothing waits for it in between.
    chosen = torch.zeros(num_clusters, dtype=torch.int64, device=x.device)
    chosen[:1] = torch.randint(len(x), (1,), generator=rng).to(x.device)
    draws = torch.rand(num_clusters - 1, generator=rng, dtype=torch.float64).to(x.device)
    closest = distance.index_select(0, chosen[:1])[0]  # (Q,) squared, to the nearest so far
    for c in range(1, num_clusters):
        cdf = closest.cumsum(0, dtype=torch.float64)
        u = draws[c - 1 : c] * cdf[-1:]
        at = torch.searchsorted(cdf, u, right=True).clamp_max(len(x) - 1)
        chosen[c : c + 1] = at
        torch.minimum(closest, distance.index_select(0, at)[0], out=closest)
    return x[chosen].clone()


def kmeans(x: Tensor, num_clusters: int, seed: int = 0) -> Tensor:
    """Centres (K, D) of features (N, D), which should be centred about their mean.

    Each batch moves a centre to the mean of all images that it has been given so far.
    """
    if not 1 <= num_clusters <= len(x):
        raise ValueError(f"{num_clusters} clusters cannot be made of {len(x)} images")
    rng = torch.Generator().manual_seed(seed)
    candidates = torch.randperm(len(x), generator=rng)[: max(3 * num_clusters, CANDIDATES)]
    centres = first_centres(x[candidates.to(x.device)], num_clusters, rng)
    given = torch.zeros(num_clusters, 1, device=x.device)
    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(STEPS):
        if len(order) < min(BATCH, len(x)):
            order = torch.randperm(len(x), generator=rng)
        batch, order = x[order[:BATCH].to(x.device)], order[BATCH:]
        labels = nearest_centre(batch, centres)
        ones = batch.new_ones(len(batch), 1)
        given_now = torch.zeros_like(given).index_add_(0, labels, ones)  # bincount would wait
        total = torch.zeros_like(centres).index_add_(0, labels, batch)
        given += given_now
        centres += (total - given_now * centres) / given.clamp_min(1)
    return centres
