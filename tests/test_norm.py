"""The kernel against torch's own operations; Triton's interpreter runs it (conftest.py)."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_backbones import shaken
from torch import Tensor

from cbdm_scale.diffusion import rng
from cbdm_scale.models import norm
from cbdm_scale.models.build import build
from cbdm_scale.models.norm import GroupNorm
from cbdm_scale.models.norm_kernel import group_norm
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec


def images(n: int, channels: int, size: int, dtype: torch.dtype) -> Tensor:
    """With a mean that is large beside the spread, as activations can have."""
    x = torch.randn(n, channels, size, size) + 5 * torch.randn(1, channels, 1, 1)
    return x.to(dtype).to(memory_format=torch.channels_last).requires_grad_()


def gradients(y: Tensor, dy: Tensor, *given: Tensor) -> list[Tensor]:
    return [g.double() for g in torch.autograd.grad(y, given, dy.to(y.dtype))]


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize(
    ("n", "channels", "groups", "size", "dtype"),
    [
        pytest.param(2, 32, 8, 8, torch.float32, id="pixels in one tile"),
        pytest.param(1, 16, 4, 28, torch.float32, id="tiles, the last one cut"),
        pytest.param(2, 48, 4, 6, torch.float32, id="12 channels a group"),
        pytest.param(1, 24, 6, 4, torch.float32, id="6 groups"),
        pytest.param(1, 96, 1, 2, torch.float32, id="one group"),
        pytest.param(3, 16, 4, 1, torch.float32, id="one pixel"),
        pytest.param(2, 32, 8, 8, torch.bfloat16, id="bf16"),
    ],
)
def test_the_kernel_is_group_norm_and_silu_with_all_gradients(
    n, channels, groups, size, dtype, shifted
):
    """Also of images with a number added to each channel of each; that without SiLU."""
    x = images(n, channels, size, dtype)
    weight = (1 + 0.3 * torch.randn(channels)).requires_grad_()
    bias = (0.3 * torch.randn(channels)).requires_grad_()
    shift = (2 * torch.randn(n, channels)).requires_grad_() if shifted else None
    dy = torch.randn_like(x, dtype=torch.float32)
    y = group_norm(x, weight, bias, groups, 1e-5, not shifted, shift)
    whole = x.double() if shift is None else x.double() + shift.double()[:, :, None, None]
    exact = F.group_norm(whole, groups, weight.double(), bias.double())
    exact = exact if shifted else F.silu(exact)
    assert y.dtype == torch.float32 and y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=2e-5)
    given = [one for one in (x, weight, bias, shift) if one is not None]
    found, expected = gradients(y, dy, *given), gradients(exact, dy, *given)
    rounding = 1e-5 if dtype == torch.float32 else 8e-3  # the interpreter cuts bf16 off
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).norm() < rounding * theirs.norm() + 1e-3 * shifted + 1e-4


def test_under_autocast_the_kernel_rounds_as_the_next_layer_would():
    layer, x = GroupNorm(4, 16, silu=True), images(2, 16, 4, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = group_norm(x, layer.weight, layer.bias, 4, layer.eps, True)
        expected = layer(x).bfloat16()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2**-7, atol=1e-4)  # the last bit of bf16


def test_the_same_images_give_the_same_bits_in_any_company():
    """No sums over the batch on the way: a chunk's images do not depend on its size."""
    layer, x = GroupNorm(4, 16), images(5, 16, 8, torch.float32)
    alone = group_norm(x[:2].detach(), layer.weight, layer.bias, 4, 1e-5, True)
    assert torch.equal(group_norm(x, layer.weight, layer.bias, 4, 1e-5, True)[:2], alone)


@pytest.fixture
def on_gpu(monkeypatch):
    """As on a machine with CUDA, and what was found out before forgotten."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *size, device: torch.full(size, 1.0))
    norm.fused.cache_clear()
    yield monkeypatch
    norm.fused.cache_clear()


def test_the_kernel_is_for_gpus_and_a_variable_leaves_it_out(on_gpu):
    assert norm.fused() is group_norm
    norm.fused.cache_clear()
    on_gpu.setenv("CBDM_SCALE_EAGER", "1")
    rng._kernel.cache_clear()
    assert norm.fused() is None and rng._kernel() is None  # and without a warning
    rng._kernel.cache_clear()
    norm.fused.cache_clear()
    on_gpu.delenv("CBDM_SCALE_EAGER")
    on_gpu.setattr(torch.cuda, "is_available", lambda: False)
    assert norm.fused() is None


def test_without_triton_there_is_a_line_and_torchs_operations(on_gpu):
    on_gpu.delitem(sys.modules, "cbdm_scale.models.norm_kernel")
    on_gpu.setitem(sys.modules, "triton", None)  # as if it were not installed
    with pytest.warns(UserWarning, match="GroupNorm runs as torch's own operations"):
        assert norm.fused() is None
    assert norm.fused() is None  # once


def test_the_kernel_is_for_float32_weights_and_images_in_channels_last_of_a_gpu(monkeypatch):
    monkeypatch.setattr(norm, "fused", lambda: group_norm)

    class OnGPU(Tensor):
        is_cuda = True

    layer = GroupNorm(4, 16)
    x = images(2, 16, 4, torch.bfloat16).detach().as_subclass(OnGPU)
    assert layer._kernel(x) is group_norm
    for other in (x.as_subclass(Tensor), x.contiguous(), x.double(), x.flatten(2)):
        assert layer._kernel(other) is None
    assert layer.double()._kernel(x) is None


def test_a_network_with_the_kernel_is_that_without(monkeypatch):
    """Prediction and all gradients: the shift of a norm is what stands before it elsewhere."""
    model = UNetConfig(channels=8, multipliers=(1,), num_blocks=1, attention=(), groups=4)
    model = replace(model, dropout=0.0)
    spec = NetworkSpec(model=model, channels=3, image_size=4, num_classes=5)
    net = shaken(build(spec)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    called = []

    def kernel(*given):
        called.append(len(given))
        return group_norm(*given)

    def prediction_and_gradients():
        out = net(x, torch.tensor([5, 900]), torch.tensor([1, 4]))
        return [out, *torch.autograd.grad(out.square().mean(), net.parameters())]

    expected = prediction_and_gradients()
    monkeypatch.setattr(GroupNorm, "_kernel", lambda self, x: kernel)
    for mine, theirs in zip(prediction_and_gradients(), expected, strict=True):
        assert (mine - theirs).norm() < 1e-5 * theirs.norm() + 1e-7
    norms = sum(isinstance(one, GroupNorm) for one in net.modules())
    assert len(called) == norms and called.count(7) == 5  # a block's second norm is shifted


COMPILE = """
from itertools import product
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from cbdm_scale.models import norm_kernel
numbers = dict(pixels="i32", channels="i32", groups="i32")
kernels = norm_kernel._forward, norm_kernel._backward
for fn, half, shifted in product(kernels, ("bf16", "fp32"), (True, False)):
    types = {name: "*fp32" for name in fn.arg_names} | numbers | {"eps": "fp32"}
    types |= {name: f"*{half}" for name in ("x", "y", "dy", "dx")}
    fixed = dict(SIZE=12, PADDED=16, GROUPS=4, ROWS=16, SILU=True, SHIFTED=shifted)
    types = {name: types[name] for name in fn.arg_names if name not in fixed}
    source = ASTSource(fn, types | dict.fromkeys(fixed, "constexpr"), fixed)
    made = compile(source, GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert made.asm["cubin"] and "atom" not in made.asm["ptx"]
"""


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_without_atomic_additions():
    """Without one. Such additions would come in another order each time."""
    pytest.importorskip("triton")
    paths = {"TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    asked = [sys.executable, "-c", COMPILE]
    done = subprocess.run(asked, env=os.environ | paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
