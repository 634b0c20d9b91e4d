"""The machine's ceilings."""

import torch

from benchmarks.gpu.context import Context


def ceilings(context: Context) -> None:
    """Bytes and operations a second, microseconds of a launch and of a wait."""
    if context.is_cuda:
        context.note("machine", "cudnn", torch.backends.cudnn.version())
    x = torch.zeros(1 << (10 if context.tiny else 30), device=context.device)
    y = torch.empty_like(x)
    speed = 2 * x.nbytes / context.seconds(lambda: y.copy_(x)) / 1e12
    context.note("machine", "copy TB/s", round(speed, 2))
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
