"""k-means clusters of features: k-means++ (Arthur and Vassilvitskii, 2007), then mini-batches
(Sculley, 2010). Seeded: the same features and seed give the same clusters.

Shapes: N = images, D = features, K = clusters, Q = candidates for the first centres.
"""

import torch
from torch import Tensor

BATCH = 1024
STEPS = 100
BLOCK = 4096
CANDIDATES = 2048  # at least, for the first centres


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
    chosen = torch.zeros(num_clusters, dtype=torch.int64)
    chosen[0] = torch.randint(len(x), (1,), generator=rng)
    closest = distance[chosen[0]].clone()  # (Q,) squared, to the nearest centre so far
    for c in range(1, num_clusters):
        cdf = closest.cumsum(0, dtype=torch.float64)
        u = torch.rand(1, generator=rng, dtype=torch.float64) * cdf[-1].cpu()
        at = torch.searchsorted(cdf, u.to(cdf.device), right=True).clamp_max(len(x) - 1)
        chosen[c] = at
        torch.minimum(closest, distance[chosen[c]], out=closest)
    return x[chosen.to(x.device)].clone()


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
        given_now = torch.bincount(labels, minlength=num_clusters)[:, None]
        total = torch.zeros_like(centres).index_add_(0, labels, batch)
        given += given_now
        centres += (total - given_now * centres) / given.clamp_min(1)
    return centres
