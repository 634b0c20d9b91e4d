"""What a GPU computes beside what the CPU does: random numbers, samplers, gradients.

With CBDM_SCALE_TEST_DEVICE=cpu the tests of GPUs run on the CPU, where what they say is true of
itself: so that they are seen to run (test_gpu_tools.py).
"""

import os
from copy import deepcopy
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from benchmarks.gpu.context import Context, fresh
from benchmarks.gpu.loop import Run, make_batch, run_loop
from benchmarks.step import NUM_CLASSES
from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.options import NoiseConfig, ProcessName
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.options import BACKBONES, backbone_config
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.sampling.options import SamplerConfig
from cbdm_scale.sampling.sampler import Sampler

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins
ON_CPU = os.environ.get("CBDM_SCALE_TEST_DEVICE") == "cpu"
ON_GPU = torch.cuda.is_available() and not ON_CPU
DEVICE = "cuda" if ON_GPU else "cpu"
no_gpu = pytest.mark.skipif(not (ON_GPU or ON_CPU), reason="no GPU is there")
of_a_gpu = [pytest.mark.gpu, no_gpu]
needs_cuda = pytest.mark.skipif(not ON_GPU, reason="asks CUDA")

_CONVOLUTIONS = {"channels": 64, "multipliers": (1, 2), "num_blocks": 1}
SMALL = {
    "unet": _CONVOLUTIONS,
    "ddpmpp": _CONVOLUTIONS,
    "ncsnpp": _CONVOLUTIONS,
    "dit": {"depth": 4, "width": 192, "heads": 3},
    "vit": {"depth": 4, "width": 192, "heads": 6},
}
TINY = {
    "unet": {"channels": 16, "multipliers": (1, 2), "num_blocks": 1, "groups": 8},
    "ddpmpp": {"channels": 16, "multipliers": (1, 2), "num_blocks": 1},
    "ncsnpp": {"channels": 16, "multipliers": (1, 2), "num_blocks": 1},
    "dit": {"depth": 1, "width": 32, "heads": 2},
    "vit": {"depth": 1, "width": 32, "heads": 2},
}
LOSSES = {
    "ddpm": LossConfig(name="ddpm"),
    "cbdm": LossConfig(),
    "cbdm of a quarter": LossConfig(reg_share=0.25),
    "ddpm+tcfg": LossConfig(name="ddpm", tcfg=True),
    "cbdm+tcfg": LossConfig(tcfg=True),
}
PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = "fp32", "bf16"


def limit(backbone: str, precision: str) -> float:
    """Largest |g - g_cpu| / |g_cpu| of a gradient g against the CPU's in fp32.

    The ViT's gradients are the sums of larger ones of either sign.
    """
    return 1e-4 if precision == "fp32" else 0.15 if backbone == "vit" else 0.05


SAMPLERS = {
    "ddpm": SamplerConfig(name="ddpm", num_steps=10),
    "ddim": SamplerConfig(name="ddim", num_steps=10, eta=0.5),
    "dpm": SamplerConfig(name="dpm", num_steps=10),
    "heun": SamplerConfig(name="heun", num_steps=5),
}


def awake(net: nn.Module) -> nn.Module:
    """Fresh networks predict nearly 0: give the last layers weights that matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim > 1 and float(p.std()) < 2e-3:
                nn.init.xavier_uniform_(p, 0.5)
            elif p.ndim == 1 and float(p.abs().max()) == 0:
                p.normal_(std=0.02)
    return net


def difference(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


def gradient_of(run: Run) -> Tensor:
    """Of the last step, flat, on the CPU in float64."""
    grads = {name: p.grad for name, p in run.state.net.named_parameters()}
    unused = [name for name, grad in grads.items() if grad is None]
    assert not unused, f"unused parameters: {unused[:3]}"
    return torch.cat([g.detach().flatten().cpu().double() for g in grads.values()])


def on_cpu(context: Context) -> Context:
    """The same on the CPU."""
    return replace(context, device=torch.device("cpu"))


def network(context: Context, backbone: str, loss: LossConfig) -> nn.Module:
    """A small network of a backbone, without dropout, on the CPU."""
    spec = NetworkSpec(
        model=backbone_config(
            backbone, **(TINY if context.tiny else SMALL)[backbone], dropout=0.0
        ),
        channels=3,
        image_size=context.size,
        num_classes=NUM_CLASSES,
        augment=backbone == "ddpmpp",
        omega_max=loss.max_guidance,
    )
    return awake(fresh(spec))


def gradient_differences(
    context: Context, net: nn.Module, loss: LossConfig, process: ProcessName
) -> dict[str, float]:
    """Of the gradient of a step of the loop against the CPU's in fp32, by precision."""
    n, nine = 4 if context.tiny else 8, getattr(net, "augment", None) is not None

    def gradient(where: Context, precision: str) -> torch.Tensor:
        there = deepcopy(net).to(where.device, memory_format=torch.channels_last)
        batch = make_batch(n, context.size, augment=nine)
        how = {"precision": precision, "max_grad_norm": 1e9, "process": process}
        found = run_loop(where, there, loss, n, 1, warm_up=0, batch=batch, log_every=n, **how)
        assert all(map(torch.isfinite, map(torch.tensor, found.numbers[0].values())))
        return gradient_of(found)

    expected = gradient(on_cpu(context), "fp32")
    return {what: difference(gradient(context, what), expected) for what in PRECISIONS}


def random_differences(context: Context) -> tuple[bool, float]:
    """Whether random words are the CPU's; the largest difference of normal numbers."""
    images = torch.arange(64) * 12345
    there = images.to(context.device)
    words = rng.bits(3, "noise", images, 1024)
    same = words.equal(rng.bits(3, "noise", there, 1024).cpu())
    off = rng.normal(3, "noise", images, 3072) - rng.normal(3, "noise", there, 3072).cpu()
    return same, float(off.abs().max())


def sampler_differences(context: Context, name: str) -> dict[str, float]:
    """Pixels (of 255) of images against the CPU's, and of making them again."""
    net = awake(fresh(context.spec(dropout=0.0))).eval().requires_grad_(False)
    process: ProcessName = "edm" if name == "heun" else "ddpm"
    made = []
    for device in (torch.device("cpu"), context.device, context.device):
        sampler = Sampler(
            shape=(3, context.size, context.size),
            null_label=NUM_CLASSES,
            process=build_process(NoiseConfig(process=process), device),
            config=SAMPLERS[name],
            seed=0,
        )
        samples = torch.arange(4, device=device)
        with torch.no_grad():
            x = sampler.generate(deepcopy(net).to(device), samples, samples, 1.0)
        made.append(to_uint8(x).cpu().int())
    off, again = (made[0] - made[1]).abs(), (made[1] - made[2]).abs()
    share = float((off > 0).double().mean())
    return {"most": int(off.max()), "share": share, "most, again": int(again.max())}


def combinations() -> list[tuple[str, ProcessName, str]]:
    """Backbone, process and loss, by name: all under ddpm, some under edm."""
    found: list[tuple[str, ProcessName, str]] = [
        (b, "ddpm", name) for name in LOSSES for b in BACKBONES
    ]
    return found + [(b, "edm", name) for name in ("ddpm", "cbdm+tcfg") for b in BACKBONES]
