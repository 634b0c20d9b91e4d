"""Group normalisation and the SiLU behind it: one kernel on GPUs, torch's operations elsewhere.

Shapes: N = batch, C = channels, H = height, W = width.
"""

import warnings
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbdm_scale.diffusion.kernels import is_eager


class GroupNorm(nn.GroupNorm):
    """Group normalisation in the precision of its weights, float32 under bf16 autocast too.

    ``silu``: x sigmoid(x) of the result, in that precision too. On a GPU images in
    ``channels_last`` go through one kernel, which computes in float32 and gives what autocast
    would make of the result.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5, *, silu: bool = False):
        super().__init__(groups, channels, eps)
        self.silu = silu

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> same shape, in the dtype of the weights (the kernel: of autocast)."""
        if kernel := self._kernel(x):
            return kernel(x, self.weight, self.bias, self.num_groups, self.eps, self.silu)
        x = x.to(self.weight.dtype)
        h = F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return F.silu(h) if self.silu else h

    def after(self, layer: nn.Conv2d, x: Tensor, shift: Tensor) -> Tensor:
        """The norm of layer(x) + shift, with shift (N, C) the same for all pixels.

        The kernel adds the shift, and the layer's bias, to what the layer makes without.
        """
        kernel = self._kernel(x)
        if kernel is None or layer.bias is None:
            out: Tensor = self(layer(x) + shift[:, :, None, None])
            return out
        h = F.conv2d(x, layer.weight, None, layer.stride, layer.padding)
        h = h.contiguous(memory_format=torch.channels_last)
        affine = self.weight, self.bias
        return kernel(h, *affine, self.num_groups, self.eps, self.silu, shift + layer.bias)

    def _kernel(self, x: Tensor) -> Callable[..., Tensor] | None:
        """The kernel, if it is for such images; a compiler fuses torch's operations itself."""
        fits = (
            x.ndim == 4
            and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
            and self.weight.dtype == torch.float32
            and x.is_contiguous(memory_format=torch.channels_last)
            and not torch.compiler.is_compiling()
        )
        return fused() if fits and x.is_cuda else None


@cache
def fused() -> Callable[..., Tensor] | None:
    """The kernel; None if it is not wanted, or cannot be built: then a warning says why."""
    if is_eager() or not torch.cuda.is_available():
        return None
    try:
        from cbdm_scale.models.norm_kernel import group_norm

        tiny = torch.ones(1, 1, 1, 1, device="cuda")
        group_norm(tiny, tiny.flatten(), tiny.flatten(), 1, 1e-5, True)
    except (ImportError, RuntimeError) as error:  # no Triton, or no C compiler for it
        warnings.warn(
            f"GroupNorm runs as torch's own operations, which are slower: {error}", stacklevel=2
        )
        return None
    return group_norm
