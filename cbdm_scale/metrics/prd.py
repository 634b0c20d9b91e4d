"""Precision and recall of distributions (PRD: Sajjadi et al., 2018): F_8 and F_1/8.

Real and generated images are clustered together, 20 clusters a class (Section 4.1), and the
two histograms over the clusters compared along 1,001 angles. F_8 weighs recall (diversity),
F_1/8 precision (fidelity). The curve is averaged over 10 seeded clusterings, and F taken from
it. Both sides hold equally many images; clusters are capped at a tenth of that number, and a
number with a cap does not compare with one without.

Shapes: N = images a side, D = features, K = clusters, A = angles.
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from cbdm_scale.metrics.kmeans import kmeans, nearest_centre

CLUSTERS_PER_CLASS = 20
NUM_ANGLES = 1001
NUM_RUNS = 10


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


def prd(
    real: Tensor, fake: Tensor, num_classes: int, num_runs: int = NUM_RUNS, seed: int = 0
) -> PRD:
    """The averaged curve of real (N, D) and generated features (M, D)."""
    n = min(len(real), len(fake))
    wanted = CLUSTERS_PER_CLASS * num_classes
    num_clusters = min(wanted, n // 10)
    if num_clusters < 2:
        raise ValueError(
            f"PRD needs at least 20 images on each side, for 2 clusters; got {len(real)} real "
            f"and {len(fake)} generated ones."
        )
    rng = torch.Generator().manual_seed(seed)
    both = torch.cat([_subsample(side, n, rng).float() for side in (real, fake)])
    mean = both.mean(0)
    if not mean.isfinite().all():
        raise ValueError("features hold non-finite numbers: look at the images they are of")
    both -= mean
    precision = recall = torch.zeros(NUM_ANGLES, dtype=torch.float64)
    for run in range(num_runs):
        labels = nearest_centre(both, kmeans(both, num_clusters, seed * num_runs + run))
        shares = [torch.bincount(y, minlength=num_clusters).cpu() / n for y in labels.split(n)]
        p, r = prd_curve(shares[0], shares[1])
        precision, recall = precision + p / num_runs, recall + r / num_runs
    return PRD(precision, recall, n, num_clusters, wanted)


def _subsample(features: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """n of the images at random, all of them in order if there are no more."""
    if len(features) == n:
        return features
    return features[torch.randperm(len(features), generator=rng)[:n].to(features.device)]
