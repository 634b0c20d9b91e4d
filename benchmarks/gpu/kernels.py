"""Where a step's time goes on the device: its kernels, and the lines that wait for it."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from benchmarks.gpu.context import Context
from benchmarks.gpu.loop import EAGER, run_loop
from cbdm_scale.losses.options import LossConfig

KINDS = {
    "layout": ("nchwToNhwc", "nhwcToNchw", "transpose", "permute", "tensorTransform"),
    "group norm": ("group_norm", "GroupNorm", "Moments", "InternalGradients", "FusedParams"),
    "attention": ("flash", "fmha", "attention"),
    "Adam, average, norm": ("multi_tensor", "fused_adam", "lpnorm", "foreach"),
    "copies": ("Memcpy", "Memset", "copy_kernel", "direct_copy", "bfloat16_copy", "float_copy"),
    "convolutions, products": (
        *("conv", "gemm", "cutlass", "xmma", "wgrad", "dgrad", "implicit", "sm90_", "nvjet"),
        "cudnn",
    ),
    "elementwise": ("elementwise", "reduce", "silu", "dropout", "CatArray", "index"),
}
"""Parts of kernels' names; the first that fits."""


@contextmanager
def no_waits() -> Iterator[None]:
    """Whatever waits for the device raises a RuntimeError."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waits(context: Context) -> None:
    """Some steps of the loop, none of which may wait for the device."""
    if not context.is_cuda:
        return
    for name, options in {"usual": {}, "eager": EAGER}.items():
        with context.guarded("waits", name):
            run_loop(context, context.net(), LossConfig(), 64, 5, during=no_waits, **options)
            context.note("waits", f"five steps without, {name}", True)


def profiled(context: Context) -> None:
    """Kernels of a step of CBDM: how many, how long, of which kind."""
    n, steps = (8, 1) if context.tiny else (64, 3)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * context.is_cuda
    found: list[Any] = []

    @contextmanager
    def recorded() -> Iterator[None]:
        with profiler(activities=kinds) as recording:
            yield
            context.sync()
        found.append(recording)

    run = run_loop(context, context.net(), LossConfig(), n, steps, during=recorded, **EAGER)
    events = list(found[0].events())
    if context.is_cuda:
        cuda = torch.autograd.DeviceType.CUDA
        host = ("Optimizer", "Profiler", "aten::", "autograd::")
        events = [e for e in events if e.device_type == cuda and not e.name.startswith(host)]
    ms: dict[str, float] = defaultdict(float)
    times: Counter[str] = Counter()
    for event in events:
        ms[event.name[:90]] += event.time_range.elapsed_us() / 1e3 / steps
        times[event.name[:90]] += 1
    by_kind: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name in ms:
        kind = next((k for k, words in KINDS.items() if any(w in name for w in words)), "other")
        by_kind[kind][0] += round(times[name] / steps, 1)
        by_kind[kind][1] = round(by_kind[kind][1] + ms[name], 3)
    total = sum(ms.values())
    context.note("profile", "kernels a step", round(len(events) / steps))
    context.note("profile", "ms of kernels a step", round(total, 2))
    context.note("profile", "busy share, profiled", round(total / 1e3 / run.wall, 3))
    for kind, (often, spent) in sorted(by_kind.items(), key=lambda item: -item[1][1]):
        context.note("profile", f"{kind}: kernels, ms", [often, spent])
    top = sorted(ms, key=lambda name: -ms[name])[:25]
    rows = [[name, times[name] / steps, round(ms[name], 3)] for name in top]
    context.bench.figures["profile"]["longest (kernel, times, ms)"] = rows
    for name, often, spent in rows[:12]:
        print(f"    {spent:8.3f} ms {often:5.0f} x {name}")
