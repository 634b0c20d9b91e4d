"""Random numbers that follow the image, not the worker.

Every number is a pure function of (seed, purpose, image, stream): which rank draws it, in which
batch, after how many restarts, does not matter. The generator is Philox4x32-10 of Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), vectorised over images.
Shapes: N = images, count = numbers an image, P = purposes.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.diffusion.kernels import is_eager

MASK = 0xFFFFFFFF
LOW, HALF = np.uint64(MASK), np.uint64(32)
ROUND_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
KEY_STEPS = np.multiply.outer(np.arange(10), [0x9E3779B9, 0xBB67AE85]).astype(np.uint64)
BLOCKS_AT_ONCE = 2**14
"""Of four words each: so many stay in a processor's cache."""

Words = NDArray[np.uint64]
"""32-bit words, in 64 bits that hold the products of two."""


def philox(counter: Words, key: Words) -> tuple[Words, Words, Words, Words]:
    """Philox4x32-10: four words of counter (4, ...) and two of key -> four words (...).

    key (2, ...) has as many axes, and broadcasts to those of the counter.
    """
    columns = 2, *[1] * (counter.ndim - 1)
    multipliers = ROUND_MULTIPLIERS.reshape(columns)
    keys = (key + KEY_STEPS.reshape(10, *columns)) & LOW
    even, odd = counter[0::2], counter[1::2]
    for round_key in keys:
        product = even * multipliers
        even = (product >> HALF)[::-1]
        even ^= odd
        even ^= round_key
        product &= LOW
        odd = product[::-1]
    return even[0], odd[0], even[1], odd[1]


def make_key(seed: int, purpose: str) -> tuple[int, int]:
    """The two key words of one purpose ("timestep", "noise", ...) under one seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def _words(
    key: tuple[int, int], images: Tensor, num_blocks: int, stream: int
) -> Iterator[tuple[slice, Sequence[Tensor]]]:
    """Blocks of four words of images (N,), a few at a time: which, and 4 x (n, num_blocks)."""
    if images.device.type != "cpu":
        yield slice(None), _device_words(key, images, num_blocks, stream)
        return
    at_once = max(1, BLOCKS_AT_ONCE // max(1, num_blocks))
    for begin in range(0, len(images), at_once):
        rows = slice(begin, begin + at_once)
        numbers = images[rows].numpy()
        counter = np.empty((4, len(numbers), num_blocks), np.uint64)
        counter[0] = (numbers & MASK)[:, None]
        counter[1] = (numbers >> 32)[:, None]
        counter[2] = np.arange(num_blocks)
        counter[3] = stream
        words = philox(counter, np.array(key, np.uint64).reshape(2, 1, 1))
        yield rows, [torch.from_numpy(word.view(np.int64)) for word in words]


def _device_words(
    key: tuple[int, int], images: Tensor, num_blocks: int, stream: int
) -> Sequence[Tensor]:
    """`philox` on another device, 4 x (N, num_blocks) int64: products wrap, as wanted."""
    image = images.unsqueeze(1)
    c0, c1 = image & MASK, image >> 32
    c2, c3 = torch.arange(num_blocks, device=images.device).unsqueeze(0), image * 0 + stream
    (m0, m1), (s0, s1), (k0, k1) = ROUND_MULTIPLIERS.tolist(), KEY_STEPS[1].tolist(), key
    for _ in range(10):
        first, second = c0 * m0, c2 * m1
        c0, c1 = ((second >> 32) & MASK) ^ c1 ^ k0, second & MASK
        c2, c3 = ((first >> 32) & MASK) ^ c3 ^ k1, first & MASK
        k0, k1 = (k0 + s0) & MASK, (k1 + s1) & MASK
    return c0, c1, c2, c3


@cache
def _kernel() -> Callable[[tuple[int, int], Tensor, int, int], Tensor] | None:
    """`rng_kernel.normal`; None where it cannot be built, for which a warning says why, or is
    not wanted."""
    if is_eager():
        return None
    try:
        from cbdm_scale.diffusion import rng_kernel

        rng_kernel.normal((0, 0), torch.zeros(1, dtype=torch.int64, device="cuda"), 1, 0)
    except (ImportError, RuntimeError) as error:  # no Triton, or no C compiler for it
        warnings.warn(f"noise is made by many small kernels, not by one: {error}", stacklevel=3)
        return None
    return rng_kernel.normal


def bits(seed: int, purpose: str, images: Tensor, count: int = 1, stream: int = 0) -> Tensor:
    """Uniform 32-bit words: images (N,) int64 >= 0 -> (N, count) int64 in [0, 2^32)."""
    shape = len(images), (count + 3) // 4, 4
    found = torch.empty(shape, dtype=torch.int64, device=images.device)
    for rows, words in _words(make_key(seed, purpose), images, shape[1], stream):
        for i, word in enumerate(words):
            found[rows, :, i] = word
    return found.flatten(1)[:, :count]


def uniform(seed: int, purpose: str, images: Tensor, count: int = 1, stream: int = 0) -> Tensor:
    """Float64 numbers strictly inside (0, 1), shape (N, count)."""
    return (bits(seed, purpose, images, count, stream).double() + 0.5) / 2**32


def first_uniform(keys: Words, images: NDArray[np.int64]) -> NDArray[np.float64]:
    """The first number of `uniform` for many purposes in one call, on the host.

    keys (2, P), of `make_key` in columns; images (P, N), of each purpose its own -> (P, N).
    """
    counter = np.zeros((4, *images.shape), np.uint64)
    counter[0] = images & MASK
    counter[1] = images >> 32
    words: NDArray[np.float64] = philox(counter, keys[:, :, None])[0].astype(np.float64)
    return (words + 0.5) / 2**32


def normal(seed: int, purpose: str, images: Tensor, count: int, stream: int = 0) -> Tensor:
    """Float32 standard normal numbers by Box and Muller, (N, count), where the images are.

    On a GPU one kernel makes them, of the same words: within 1e-6 of those of a CPU. Nothing
    waits, and it can be captured in a graph once it has run.
    """
    key = make_key(seed, purpose)
    if images.is_cuda and (kernel := _kernel()) is not None:
        return kernel(key, images, count, stream)
    num_blocks = (count + 3) // 4
    found = torch.empty(len(images), num_blocks, 4, device=images.device)
    for rows, words in _words(key, images, num_blocks, stream):
        for i in (0, 2):
            radius = torch.sqrt(-2 * torch.log((words[i].float() + 0.5) / 2**32))
            angle = (2 * math.pi / 2**32) * words[i + 1].float()
            torch.mul(radius, angle.cos(), out=found[rows, :, i])
            torch.mul(radius, angle.sin(), out=found[rows, :, i + 1])
    return found.flatten(1)[:, :count]


def permutation(seed: int, purpose: str, size: int) -> Tensor:
    """A keyed permutation of range(size), (size,) int64: the order of one random word each."""
    words = bits(seed, purpose, torch.arange(size), 2)
    return torch.argsort((words[:, 0] << 31) | (words[:, 1] >> 1), stable=True)
