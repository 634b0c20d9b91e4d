"""How an image becomes a network's input: the three rules that published FIDs follow.

FIDs under different rules do not compare (Parmar et al., 2022), so the rule is part of an
extractor's fingerprint. All of them work in float32 and round nothing.

bilinear  pytorch-fid: a pixel is a square (its centre at 0.5), no antialiasing; 0..255 becomes
          [-1, 1]. The paper's numbers are made this way.
tf1       torch-fidelity and TensorFlow 1: pixel i stands at i, no antialiasing; (v - 128) / 128
bicubic   clean-fid: PIL's bicubic, which antialiases, clipped to 0..255; (v - 128) / 128

Shapes: N = images, C = channels, H, W = height and width, S = side of the network's input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cbdm_scale.metrics.options import Resize
from cbdm_scale.storage.checks import check_value


def resize(levels: Tensor, side: int, rule: Resize) -> Tensor:
    """Images (N, C, H, W) in 0..255 -> (N, C, S, S) float32, still in 0..255."""
    check_value("eval.resize", rule, Resize, default="bilinear")
    x = levels.to(torch.float32)
    if x.shape[-2:] == (side, side):  # every rule leaves the right size alone
        return x
    match rule:
        case "bilinear":
            return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
        case "tf1":
            return _lerp(_lerp(x, side, -1), side, -2)
        case "bicubic":
            new = F.interpolate(
                x, (side, side), mode="bicubic", align_corners=False, antialias=True
            )
            return new.clamp(0, 255)


def to_network(levels: Tensor, rule: Resize) -> Tensor:
    """0..255 to the range that Inception gets under the rule."""
    return levels / 127.5 - 1 if rule == "bilinear" else (levels - 128) / 128


def _lerp(x: Tensor, side: int, dim: int) -> Tensor:
    """Linear interpolation along one dimension, output pixel i at i * (old side) / (new)."""
    old = x.shape[dim]
    place = torch.arange(side, device=x.device, dtype=torch.float32) * (old / side)
    low = place.long()
    share = place - low
    a, b = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp_max(old - 1))
    return a + (b - a) * (share if dim == -1 else share[:, None])
