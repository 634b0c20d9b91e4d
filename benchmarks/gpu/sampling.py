"""Sampling: milliseconds a step, images a second, hours of a set of 50,000."""

import torch
from torch import Tensor, nn

from benchmarks.gpu.context import (
    NUM_CLASSES,
    Context,
    awake,
    forward_flops,
    fresh,
)
from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.generate import Sampler
from cbdm_scale.sampling.options import SamplerConfig, SamplerName


def sample(context: Context) -> None:
    """The paper's U-Net, guided: as the sample command makes images, and in other layouts."""
    net = awake(fresh(context.spec(dropout=0.0))).eval().requires_grad_(False)
    first = net.to(context.device)
    last = awake(fresh(context.spec(dropout=0.0))).eval().requires_grad_(False)
    last = last.to(context.device, memory_format=torch.channels_last)
    if context.tiny:
        measure(context, "channels first", first, 4, "fp32", "ddim")
        measure(context, "channels last", last, 4, "bf16", "ddpm")
        return
    measure(context, "channels first", first, 100, "fp32", "ddim")
    measure(context, "channels first", first, 100, "bf16", "ddim")
    measure(context, "channels last", last, 100, "bf16", "ddim")
    measure(context, "channels last", last, 100, "bf16", "ddpm")
    for chunk in (250, 500):
        measure(context, "channels last", last, chunk, "bf16", "ddpm")
    with context.guarded("sample: chunks"):
        chunks(context, last)


def make(
    context: Context, net: nn.Module, samples: Tensor, chunk: int, precision: str, **how: object
) -> Tensor:
    """uint8 images on the CPU, guided with omega 1."""
    sampler = Sampler(
        shape=(3, context.size, context.size),
        null_label=NUM_CLASSES,
        process=LinearSchedule().to(context.device),
        config=SamplerConfig(**how),
        seed=0,
        chunk_size=chunk,
    )
    there = samples.to(context.device)
    bf16 = precision == "bf16"
    with torch.autocast(context.device.type, dtype=torch.bfloat16, enabled=bf16):
        return to_uint8(sampler.generate(net, there, there % NUM_CLASSES, 1.0)).cpu()


def measure(
    context: Context, layout: str, net: nn.Module, chunk: int, precision: str, name: SamplerName
) -> None:
    """One chunk."""
    steps = 3 if context.tiny else 20
    case = f"{name}, chunk {chunk}, {precision}, {layout}"
    with context.guarded(f"sample: {case}"):
        samples = torch.arange(chunk)

        def work() -> None:
            make(context, net, samples, chunk, precision, name=name, num_steps=steps)

        seconds = context.seconds(work, 2, 1)
        a_step = seconds / steps
        flops = 2 * chunk * forward_flops(context.spec()) / a_step
        row = {
            "ms a step": 1e3 * a_step,
            "images/s at 100 steps": chunk / a_step / 100,
            "hours of 50,000 at 1,000 steps": 50_000 / chunk * 1000 * a_step / 3600,
            "TFLOP/s": flops / 1e12,
        }
        context.note("sample", case, {k: float(f"{v:.4g}") for k, v in row.items()})


def chunks(context: Context, net: nn.Module) -> None:
    """The same chunk gives the same bytes; another chunk size differs in roundings."""
    samples, how = torch.arange(100), {"num_steps": 20}
    once, again = (make(context, net, samples, 100, "bf16", **how) for _ in range(2))
    context.note("sample", "the same chunk again: the same bytes", once.equal(again))
    off = (once.int() - make(context, net, samples, 50, "bf16", **how).int()).abs()
    found = int(off.max()), round(float((off > 0).double().mean()), 4)
    context.note("sample", "chunks of 50: largest difference, share of pixels", found)
