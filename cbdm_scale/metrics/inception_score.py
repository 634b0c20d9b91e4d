"""Inception Score (IS: Salimans et al., 2016): exp of the mean KL(p(y|x) || p(y)), 10 splits.

The paper's value is over the 1,008 outputs of the FID Inception network; other classifiers give
other scales. Splits are runs of consecutive images in the order given, as in the original
code: images that are sorted by class must be shuffled before, ours are class-cyclic.

Shapes: N = images, K = classes of the classifier.
"""

import torch
from torch import Tensor

from cbdm_scale.metrics.intervals import Interval


def inception_score(probs: Tensor, num_splits: int = 10) -> Interval:
    """Score of class probabilities (N, K); split i holds images [i N / S, (i + 1) N / S).

    low and high: the mean over the splits plus and minus their standard deviation (divided by
    their number).
    """
    if probs.ndim != 2 or not 1 <= num_splits <= len(probs):
        raise ValueError(
            f"the Inception Score needs probabilities (N, K) of at least {num_splits} images "
            f"for its {num_splits} splits, got {tuple(probs.shape)}"
        )
    sums = probs.sum(1, dtype=torch.float64)
    if not (probs.min() >= 0 and (sums - 1).abs().max() < 1e-3):
        raise ValueError("class probabilities must be >= 0 and sum to 1. Are these logits?")
    scores = []
    for i in range(num_splits):
        p = probs[i * len(probs) // num_splits : (i + 1) * len(probs) // num_splits].double()
        mean = p.mean(0)
        kl = (torch.xlogy(p, p) - torch.xlogy(p, mean)).sum(1)
        scores.append(kl.mean().exp())
    found = torch.stack(scores)
    value, std = float(found.mean()), float(found.std(correction=0))
    return Interval(value, value - std, value + std)


def inception_score_of_logits(logits: Tensor) -> Interval:
    """The same from unnormalised log probabilities (N, K)."""
    return inception_score(logits.double().softmax(1))
