"""The noise of `rng` on a GPU in one kernel of Triton, which comes with torch for CUDA.

Words are those of the host, bit for bit; normal numbers differ by the rounding of the device's
logarithm, sine and cosine. It can be captured in a graph. Shapes: N = images.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCKS = 256
"""Of four words each, that a program of the kernel makes."""


@triton.jit
def _box_muller(radius_word, angle_word):  # type: ignore[no-untyped-def]
    """Two normal numbers of two words."""
    radius = tl.sqrt_rn(-2 * tl.log((radius_word.to(tl.float32) + 0.5) * 2.0**-32))
    angle = angle_word.to(tl.float32) * (2 * 3.141592653589793 / 2.0**32)
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit  # type: ignore[untyped-decorator]
def _fill(  # type: ignore[no-untyped-def]
    out, images, key: tl.uint64, stream: tl.uint32, count: tl.int32, BLOCKS: tl.constexpr
):
    """One image's numbers of BLOCKS blocks."""
    row, begin = tl.program_id(0), tl.program_id(1) * BLOCKS
    block = begin + tl.arange(0, BLOCKS)
    image = tl.load(images + row)
    low, high = (image & 0xFFFFFFFF).to(tl.uint32), (image >> 32).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(key, low + block * 0, high, block, stream)
    z0, z1 = _box_muller(w0, w1)
    z2, z3 = _box_muller(w2, w3)
    z = tl.interleave(tl.interleave(z0, z2), tl.interleave(z1, z3))
    place = 4 * begin + tl.arange(0, 4 * BLOCKS)
    tl.store(out + row.to(tl.int64) * count + place, z, mask=place < count)


def normal(key: tuple[int, int], images: Tensor, count: int, stream: int) -> Tensor:
    """Standard normal numbers of images (N,) int64: (N, count) float32, on their device."""
    out = torch.empty(len(images), count, device=images.device)
    if out.numel():
        grid = len(images), triton.cdiv(count, 4 * BLOCKS)
        word = key[0] | key[1] << 32
        fill = _fill[grid]
        fill(out, images.contiguous(), word, stream, count, BLOCKS, enable_fp_fusion=False)
    return out
