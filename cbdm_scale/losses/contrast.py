"""Losses between the features of a batch: all pairs, in float32 under autocast too.

Shapes: N = images of the micro-batch, F = numbers of each image's features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = -1e9
"""A logit of what is left out, finite: of nothing but these a log-sum-exp has no NaN."""


def products(z: Tensor) -> Tensor:
    """Inner products of all pairs: (N, F) -> (N, N) float32."""
    with torch.autocast(z.device.type, enabled=False):
        z = z.float()
        return z @ z.T


def dispersion(z: Tensor) -> Tensor:
    """log mean_ij exp(-|z_i - z_j|^2 / F), i = j among them: (N, F) -> ().

    The dispersive loss (2506.09027) with Euclidean distance; 0 for one image.
    """
    inner = products(z)
    square = inner.diagonal()
    distance = (square.unsqueeze(1) + square - 2 * inner).clamp_min(0) / z.shape[1]
    return distance.neg().exp().mean().log()


def repulsion(z: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each image with itself as the positive: (N, F) -> (N,), 0 for one image.

    -log exp(1 / temperature) / sum_j exp(cos(z_i, z_j) / temperature).
    """
    logits = products(F.normalize(z.float(), dim=1)) / temperature
    return -logits.log_softmax(1).diagonal()


def supervised(z: Tensor, y: Tensor, seen: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """SupCon (Khosla et al., 2020, L_out): (N,) values, and which images have a positive (N,).

    -mean_p log exp(cos(z_i, z_p) / temperature) / sum_a exp(cos(z_i, z_a) / temperature), p the
    other images of the class, a all others; z (N, F), y (N,). Images that are not ``seen`` (N,)
    are in no sum. An image without a positive has 0.
    """
    logits = products(F.normalize(z.float(), dim=1)) / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    others = ~itself & seen
    log_prob = logits - logits.masked_fill(~others, NEVER).logsumexp(1, keepdim=True)
    positive = others & (y.unsqueeze(1) == y) & seen.unsqueeze(1)
    count = positive.sum(1)
    total = torch.where(positive, log_prob, 0).sum(1)
    return -total / count.clamp_min(1), count > 0
