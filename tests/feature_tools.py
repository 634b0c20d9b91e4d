"""Random features for tests of metrics."""

import torch


def normal(seed, n, dim, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, dtype=torch.float64, generator=rng).to(dtype)


def skewed(seed, n, dim):
    """Positive, correlated, of decaying spread and far from zero, as pooled features are."""
    mix = normal(99, dim, dim) * torch.logspace(0, -1, dim)
    return (normal(seed, n, dim) @ mix).exp().clamp_max(50) * 0.1 + 3
