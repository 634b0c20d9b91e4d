"""Random numbers that follow the image, not the worker.

Every number is a pure function of (seed, purpose, image, stream): which rank draws it, in which
batch, after how many restarts, does not matter. The generator is Philox4x32-10 of Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), vectorised over images.
Shapes: N = images, count = numbers an image.
"""

import hashlib
import math

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
ROUND_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * b for 32-bit words held in int64 (which wraps, as wanted)."""
    product = b * a
    return (product >> 32) & MASK, product & MASK


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Philox4x32-10: four words of counter, each (...) int64 in [0, 2^32) -> (..., 4) words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        hi0, lo0 = _multiply(ROUND_MULTIPLIERS[0], c0)
        hi1, lo1 = _multiply(ROUND_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)


def make_key(seed: int, purpose: str) -> tuple[int, int]:
    """The two key words of one purpose ("timestep", "noise", ...) under one seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def bits(seed: int, purpose: str, images: Tensor, count: int = 1, stream: int = 0) -> Tensor:
    """Uniform 32-bit words: images (N,) int64 >= 0 -> (N, count) int64 in [0, 2^32)."""
    blocks = torch.arange((count + 3) // 4, device=images.device)  # four words a block
    image = images.to(torch.int64).unsqueeze(1)  # (N, 1)
    counter = image & MASK, image >> 32, blocks.unsqueeze(0), torch.full_like(image, stream)
    return philox(counter, make_key(seed, purpose)).flatten(1)[:, :count]


def uniform(seed: int, purpose: str, images: Tensor, count: int = 1, stream: int = 0) -> Tensor:
    """Float64 numbers strictly inside (0, 1), shape (N, count)."""
    return (bits(seed, purpose, images, count, stream).double() + 0.5) / 2**32


def normal(seed: int, purpose: str, images: Tensor, count: int, stream: int = 0) -> Tensor:
    """Float32 standard normal numbers by Box and Muller, shape (N, count)."""
    pairs = (count + 1) // 2
    words = bits(seed, purpose, images, 2 * pairs, stream).float().view(-1, pairs, 2)
    radius = torch.sqrt(-2 * torch.log((words[..., 0] + 0.5) / 2**32))  # (N, pairs)
    angle = (2 * math.pi / 2**32) * words[..., 1]
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return both.flatten(1)[:, :count]


def permutation(seed: int, purpose: str, size: int) -> Tensor:
    """A keyed permutation of range(size), (size,) int64: the order of one random word each."""
    words = bits(seed, purpose, torch.arange(size), 2)
    return torch.argsort((words[:, 0] << 31) | (words[:, 1] >> 1), stable=True)
