"""Pixels: 0..255 in files, [-1, 1] in networks.

Shapes: any; the values alone change.
"""

import torch
from torch import Tensor


def to_model_range(images: Tensor) -> Tensor:
    """uint8 images in 0..255 -> float32 in [-1, 1], the same bits on every device."""
    half = torch.full((), 127.5, device=images.device)  # GPUs multiply by a number's inverse
    return images.to(torch.float32, copy=True).div_(half).sub_(1)


def to_levels(x: Tensor) -> Tensor:
    """Images in [-1, 1] -> the nearest whole numbers in 0..255, still float; clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255)


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] -> the nearest of 0..255 as uint8; what lies outside is clipped."""
    return to_levels(x).to(torch.uint8)
