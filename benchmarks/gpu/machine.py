"""The machine's ceilings, and the kernels of a step of the loop on it."""

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.context import Context
from benchmarks.gpu.loop import EAGER, run_loop
from cbdm_scale.losses.options import LossConfig


def ceilings(context: Context) -> None:
    """Bytes and operations a second, microseconds of a launch and of a wait."""
    if context.is_cuda:
        copies(context)
    n = 256 if context.tiny else 8192
    a, b = (torch.randn(n, n, device=context.device, dtype=torch.bfloat16) for _ in range(2))
    context.peak_flops = 2 * n**3 / context.seconds(lambda: a @ b, 10, 3)
    context.note("machine", "bf16 TFLOP/s", float(f"{context.peak_flops / 1e12:.4g}"))
    small = torch.zeros(8, device=context.device)

    def launches() -> None:
        for _ in range(1000):
            small.add_(1)

    us = 1e3 * context.seconds(launches)
    context.note("machine", "us of a small operation", round(us, 2))
    wait = context.seconds(lambda: small[0].item(), 50)
    context.note("machine", "us of an .item()", round(1e6 * wait, 1))


def copies(context: Context) -> None:
    """On the device, and to it."""
    context.note("machine", "cudnn", torch.backends.cudnn.version())
    x = torch.randn(1 << 30, device=context.device)
    y = torch.empty_like(x)
    speed = 2 * x.nbytes / context.seconds(lambda: y.copy_(x)) / 1e12
    context.note("machine", "copy TB/s", round(speed, 2))
    pageable = torch.empty(64 << 20, dtype=torch.uint8)
    there = torch.empty_like(pageable, device=context.device)
    for name, source in (("pageable", pageable), ("pinned", pageable.pin_memory())):
        s = context.seconds(lambda source=source: there.copy_(source, non_blocking=True))
        context.note(
            "machine", f"to the device GB/s, {name}", round(source.nbytes / s / 1e9, 1)
        )


def profiled(context: Context) -> None:
    """Kernels of a few steps of CBDM: how many, how long."""
    n, steps = (8, 1) if context.tiny else (64, 3)
    kind = ProfilerActivity.CUDA if context.is_cuda else ProfilerActivity.CPU
    recording = profile(activities=[kind])
    run = run_loop(
        context, context.net(), LossConfig(), n, steps, during=lambda: recording, **EAGER
    )
    averages = recording.key_averages()
    order = "self_device_time_total" if context.is_cuda else "self_cpu_time_total"
    context.note("profile", "events a step", round(sum(e.count for e in averages) / steps))
    total = sum(getattr(event, order) for event in averages) / 1e3 / steps
    context.note("profile", "ms of them a step", round(total, 2))
    context.note("profile", "busy share, profiled", round(total / 1e3 / run.wall, 3))
    context.tables.append(averages.table(order, row_limit=25, max_name_column_width=90))
