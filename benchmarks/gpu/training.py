"""Images a second of the train loop and share of the peak; where the time of a step goes."""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from benchmarks.gpu.context import (
    COUNTS,
    NUM_CLASSES,
    Context,
    forward_flops,
    fresh,
    predictions,
    recorded_warnings,
)
from benchmarks.gpu.loop import new_state, run_loop
from benchmarks.gpu.prototype import graphed_step
from benchmarks.step import CLIP, LR, micro_batches, obvious_step
from benchmarks.timing import Cost
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.training.distributed import OneProcess
from cbdm_scale.training.gradients import ClippedAdam, backward

DDPM, CBDM, QUARTER = "DDPM", "CBDM", "CBDM, reg_share 0.25"
LOSSES = {
    DDPM: LossConfig(name="ddpm"),
    CBDM: LossConfig(),
    QUARTER: LossConfig(reg_share=0.25),
}
PRODUCT, OBVIOUS, GRAPH = "the train loop", "the obvious way", "prototype: one CUDA graph"


@dataclass(frozen=True)
class Case:
    """A line of the table."""

    network: str
    batch_size: int
    loss: str
    variant: str = PRODUCT

    def __str__(self) -> str:
        return f"{self.network}, {self.loss}, batch {self.batch_size}, {self.variant}"


def measured(context: Context, case: Case, cost: Cost, **more: float) -> dict[str, float]:
    """What is written of a case: milliseconds, images a second, share of the peak."""
    images = predictions(LOSSES[case.loss]) * case.batch_size
    flops = 3 * images * forward_flops(context.spec(case.network)) / cost.wall
    row = {
        "ms a step": 1e3 * cost.wall,
        "host CPU ms": 1e3 * cost.cpu,
        "images/s": case.batch_size / cost.wall,
        "TFLOP/s": flops / 1e12,
        "% of the peak": 100 * flops / context.peak_flops,
        **more,
    }
    if context.is_cuda:
        row["GiB"] = torch.cuda.max_memory_allocated() / 2**30
    row = {name: float(f"{value:.4g}") for name, value in row.items()}
    context.note("train", str(case), row)
    return row


def time_case(context: Context, case: Case, steps: int, **options: Any) -> None:
    """A step of the product's loop, or of the obvious way."""
    with context.guarded(f"train: {case}"):
        if context.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            cost = cost_of(context, case, steps, **options)
        except torch.cuda.OutOfMemoryError:
            context.note("train", str(case), {"ms a step": "out of memory"})
        else:
            measured(context, case, cost)
    if context.is_cuda:
        torch.cuda.empty_cache()


def cost_of(context: Context, case: Case, steps: int, **options: Any) -> Cost:
    """Of a step, after a few."""
    loss, n = LOSSES[case.loss], case.batch_size
    if case.variant not in (OBVIOUS, GRAPH):
        net = context.net(case.network, channels_last=options.get("channels_last", True))
        return run_loop(context, net, loss, n, steps, **options)
    if case.variant == OBVIOUS:
        make_net = partial(fresh, context.spec(case.network))
        how = {"cbdm": loss.regularises, "size": context.size}
        step = obvious_step(n, make_net, context.device, **how)
    else:
        step = graphed_step(context, loss, n)
    context.turn(step, 3)
    return context.turn(step, steps)


def training(context: Context) -> None:
    """The table: networks, batches, losses, against the obvious way."""
    large, small = (8, 8) if context.tiny else (512, 64)
    for n in {small, large}:
        steps = 2 if context.tiny else 6 if n == large else 20
        for loss in (DDPM, CBDM):
            time_case(context, Case("U-Net", n, loss), steps)
            time_case(context, Case("U-Net", n, loss, OBVIOUS), max(2, steps // 2))
            if context.is_cuda:
                time_case(context, Case("U-Net", n, loss, GRAPH), steps)
    time_case(context, Case("U-Net", small, QUARTER), 2 if context.tiny else 20)
    first = Case("U-Net", small, CBDM, "channels first")
    time_case(context, first, 2 if context.tiny else 20, channels_last=False)
    for network in ("DDPM++", "DiT-S/2"):
        for n in {small, min(256, large)}:
            time_case(context, Case(network, n, CBDM), 2 if context.tiny else 8)
    if context.is_cuda:
        with context.guarded("train: waits"):
            waits(context)


def waits(context: Context) -> None:
    """Where the steps of the loop wait for the device, by line, a step."""
    steps, net = 4, context.net()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with recorded_warnings() as found:
            run_loop(context, net, LOSSES[CBDM], 16, steps, warm_up=0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    where = Counter(
        f"{w.filename.rpartition('cbdm_scale/')[2]}:{w.lineno}"
        for w in found
        if "synchroniz" in str(w.message)
    )
    context.note("train", "waits a step", {k: v / steps for k, v in where.most_common(12)})


def compiling(context: Context) -> None:
    """--train.compile, last: each takes a minute or two to compile."""
    cases = [("U-Net", 64, DDPM), ("U-Net", 512, DDPM), ("U-Net", 64, CBDM)]
    if context.tiny:
        cases = [("U-Net", 8, DDPM)]
    longest = 60.0
    for network, n, loss in cases:
        case = Case(network, n, loss, "the train loop, compiled")
        if not context.tiny and context.left() < 1.5 * longest:
            context.skipped.append(str(case))
            continue
        begin = time.perf_counter()
        torch._dynamo.reset()
        time_case(context, case, 2 if context.tiny else 15, compile=True)
        longest = max(longest, time.perf_counter() - begin)


# ---------------------------------------------------------------------------- the host


class Skeleton(nn.Module):
    """The calls of the paper's U-Net and next to none of its work: 4 channels, one image."""

    def __init__(self) -> None:
        super().__init__()
        model = UNetConfig(channels=4, groups=2)
        spec = NetworkSpec(model=model, channels=3, image_size=8, num_classes=NUM_CLASSES)
        self.net = fresh(spec)

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        return x * 0 + self.net(x[:1, :, :8, :8], level[:1], y[:1]).mean()


def host(context: Context) -> None:
    """Milliseconds of a step where the device has next to nothing to do."""
    n, steps = (8, 3) if context.tiny else (64, 40)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net = Skeleton().to(context.device)
    process = LinearSchedule().to(context.device)
    objective, draw = build_loss(LossConfig(), process, COUNTS, 0, n)
    batch, world = context.batch(n), OneProcess(str(context.device))
    state = new_state(net)
    x0, y, device = batch.x0.to(context.device), batch.y.to(context.device), context.device
    draws = draw(batch.sample_ids, tuple(x0.shape[1:]), device)
    update = ClippedAdam(state.optimizer, CLIP)

    def network() -> None:
        net.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            net(x0, draws.t, y).sum().backward()

    def gradient() -> None:
        net.zero_grad(set_to_none=True)
        parts = micro_batches(batch, draw, device)
        list(backward(net, objective, parts, world, precision="bf16"))

    parts: dict[str, Callable[[], object]] = {
        "network": network,
        "draws": lambda: draw(batch.sample_ids, tuple(x0.shape[1:]), device),
        "gradient (network, draws, loss, copies)": gradient,
        "clip and Adam": lambda: update.step(LR),
        "average": lambda: state.ema.update(net, 10**6, n),
    }
    for name, part in parts.items():
        context.turn(part, 3)
        context.note("host", f"ms, {name}", round(1e3 * context.turn(part, steps).wall, 3))
    whole = run_loop(context, Skeleton().to(device), LossConfig(), n, steps, size=context.size)
    context.note("host", "ms, a step of the loop", round(1e3 * whole.wall, 3))
    torch.set_num_threads(threads)


# ---------------------------------------------------------------------------- kernels

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
    "elementwise": (
        "elementwise",
        "reduce",
        "silu",
        "dropout",
        "CatArray",
        "index",
        "upsample",
    ),
}


def profiled(context: Context) -> None:
    """Kernels of a step of CBDM: how many, how long, of which kind."""
    n, steps = (8, 1) if context.tiny else (64, 3)
    for layout in (True,) if context.tiny else (True, False):
        net = context.net(channels_last=layout)
        state, world, batch = new_state(net), OneProcess(str(context.device)), context.batch(n)
        process = LinearSchedule().to(context.device)
        objective, draw = build_loss(LossConfig(), process, COUNTS, 0, n)
        update = ClippedAdam(state.optimizer, CLIP)

        def step(
            net=net, state=state, world=world, batch=batch, objective=objective, draw=draw,
            layout=layout, update=update,
        ) -> None:  # fmt: skip
            update.zero_grad()
            parts = micro_batches(batch, draw, world.device, layout)
            list(backward(net, objective, parts, world, precision="bf16"))
            update.step(LR)
            state.ema.update(net, 10**6, n)

        context.turn(step, 3)
        where = "channels last" if layout else "channels first"
        with context.guarded(f"profile: {where}"):
            _count_kernels(context, where, step, steps)


def _count_kernels(context: Context, where: str, step: Callable[[], None], steps: int) -> None:
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * context.is_cuda
    with profiler(activities=kinds) as found:
        cost = context.turn(step, steps)
    events = found.events() or []
    if context.is_cuda:
        cuda = torch.autograd.DeviceType.CUDA
        host_names = ("Optimizer", "Profiler", "aten::", "autograd::")
        events = [
            e for e in events if e.device_type == cuda and not e.name.startswith(host_names)
        ]
    us, times = defaultdict(float), Counter()
    for e in events:
        us[e.name[:90]] += e.time_range.elapsed_us()
        times[e.name[:90]] += 1
    total = sum(us.values()) / 1e3 / steps
    kinds_found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for name in us:
        kind = next((k for k, words in KINDS.items() if any(w in name for w in words)), "other")
        kinds_found[kind][0] += times[name] / steps
        kinds_found[kind][1] += us[name] / 1e3 / steps
    by_kind = {
        k: [round(c), round(ms, 3)]
        for k, (c, ms) in sorted(kinds_found.items(), key=lambda kv: -kv[1][1])
    }
    context.note("profile", f"{where}: kernels a step", round(len(events) / steps))
    context.note("profile", f"{where}: ms of kernels a step", round(total, 3))
    context.note("profile", f"{where}: busy share", round(total / 1e3 / cost.wall, 3))
    context.note("profile", f"{where}: by kind (kernels, ms)", by_kind)
    top = sorted(us, key=lambda name: -us[name])[:25]
    rows = [[name, times[name] / steps, round(us[name] / 1e3 / steps, 3)] for name in top]
    context.bench.figures["profile"][f"{where}: longest (kernel, times, ms)"] = rows
    for name, often, ms in rows[:10]:
        print(f"    {ms:8.3f} ms {often:5.0f} x {name}")


def machine(context: Context) -> None:
    """The ceilings: copies, products, launches."""
    note = context.note
    note("machine", "torch", torch.__version__)
    note("machine", "tf32 of convolutions by default", torch.backends.cudnn.allow_tf32)
    if context.is_cuda:
        note("machine", "device", torch.cuda.get_device_name(0))
        note("machine", "cudnn", torch.backends.cudnn.version())
        x = torch.randn(1 << 30, device=context.device)
        y = torch.empty_like(x)
        tb = 2 * x.nbytes / context.seconds(lambda: y.copy_(x)) / 1e12
        note("machine", "copy TB/s", round(tb, 2))
        pageable = torch.empty(64 << 20, dtype=torch.uint8)
        there = torch.empty_like(pageable, device=context.device)
        for name, source in (("pageable", pageable), ("pinned", pageable.pin_memory())):
            s = context.seconds(lambda source=source: there.copy_(source, non_blocking=True))
            note("machine", f"host to device GB/s, {name}", round(source.nbytes / s / 1e9, 1))
        del x, y, there
    n = 256 if context.tiny else 8192
    a, b = (torch.randn(n, n, device=context.device, dtype=torch.bfloat16) for _ in range(2))
    context.peak_flops = 2 * n**3 / context.seconds(lambda: a @ b, 10, 3)
    note("machine", "bf16 TFLOP/s", float(f"{context.peak_flops / 1e12:.4g}"))
    small = torch.zeros(8, device=context.device)

    def launches() -> None:
        for _ in range(1000):
            small.add_(1)

    begin = statistics.median(context.turn(launches).wall for _ in range(5))
    note("machine", "us of a small operation", round(begin * 1e3, 2))
    wait = context.seconds(lambda: small[0].item(), 50)
    note("machine", "us of an .item()", round(1e6 * wait, 1))
