"""Images a second of the train loop and share of the peak, against the obvious way."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean, median
from typing import Any

import torch

from benchmarks.gpu.context import DDPMPP, DIT, UNET, Context, forward_flops, fresh, rounded
from benchmarks.gpu.loop import EAGER, run_loop
from benchmarks.step import OURS, obvious_step
from benchmarks.timing import Ratio, markdown, ratio_of_medians
from cbdm_scale.devices import make_deterministic

DDPM, CBDM, QUARTER = OURS
LARGE = {UNET: 512, DIT: 512, DDPMPP: 128}
"""Batches that are large for a network of its memory."""
LOOP, OBVIOUS = "the train loop", "the obvious way"


@dataclass(frozen=True)
class Case:
    """A line of the table."""

    network: str
    batch_size: int
    loss: str
    variant: str = LOOP
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """TrainConfig's, where they are not the defaults."""

    def __str__(self) -> str:
        return f"{self.network}, batch {self.batch_size}, {self.loss}, {self.variant}"


def cases() -> list[Case]:
    """The most important first."""
    found = []
    for network in (UNET, DIT, DDPMPP):
        for n in LARGE[network], 64:
            found += [Case(network, n, loss) for loss in OURS]
            found += [Case(network, n, loss, OBVIOUS) for loss in (DDPM, CBDM)]
    for n in (512, 64):
        found += [Case(UNET, n, loss, "without CUDA graph", EAGER) for loss in (DDPM, CBDM)]
    found += [
        Case(network, n, loss)
        for network in (UNET, DIT, DDPMPP)
        for n in sorted({48, 128, 256, 512} - {LARGE[network]})
        for loss in OURS
    ]
    return found


def training(context: Context) -> None:
    """The table of all cases that there is time for."""
    todo = cases()
    if context.tiny:
        few = [Case(UNET, 8, CBDM), Case(UNET, 8, CBDM, OBVIOUS), Case(DIT, 8, DDPM)]
        todo = [*few, Case(DDPMPP, 8, QUARTER)]
    time_cases(context, todo, 8)
    context.tables.append(table(context, todo))


def compiling(context: Context) -> None:
    """--train.compile, last: each takes a minute or two to compile."""
    todo = [(8, DDPM)] if context.tiny else [(64, DDPM), (512, DDPM), (512, CBDM)]
    for n, loss in todo:
        torch._dynamo.reset()
        time_cases(context, [Case(UNET, n, loss, "compiled", {"compile": True})], 100)


def deterministic(context: Context) -> None:
    """What --train.deterministic costs, beside the same cases of ``training``."""
    todo = [Case(UNET, n, CBDM, "deterministic") for n in ([8] if context.tiny else [64, 512])]
    make_deterministic(context.device)
    time_cases(context, todo, 8)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cuda.enable_cudnn_sdp(True)


def time_cases(context: Context, todo: Sequence[Case], seconds: float) -> None:
    """As many as there is time for: a case takes so many seconds."""
    for case in todo:
        if context.has(seconds, str(case)):
            with context.guarded("train", str(case)):
                time_case(context, case)


def time_case(context: Context, case: Case) -> None:
    """Notes every step's seconds, and what follows from their median."""
    flops = 3 * forward_flops(context.spec(case.network)) * case.batch_size
    flops *= OURS[case.loss].predictions
    # About a second and a half at a sixth of the peak.
    fit = int(min(30, max(6, 0.25 * context.peak_flops / flops)))
    if context.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        measure = time_obvious if case.variant == OBVIOUS else time_loop
        seconds, cpu = measure(context, case, 2 if context.tiny else fit)
    except Exception as error:
        small = isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
        if not small:
            raise
        context.note("train", str(case), {"out of memory": str(error)[:200]})
        return
    found = {"ms a step": 1e3 * median(seconds), "host CPU ms": 1e3 * cpu}
    found["images/s"] = case.batch_size / median(seconds)
    found["TFLOP/s"] = flops / median(seconds) / 1e12
    if context.is_cuda:
        found["GiB"] = torch.cuda.max_memory_allocated() / 2**30
    context.note("train", str(case), rounded(found))
    context.bench.figures.setdefault("train, s", {})[str(case)] = seconds


def time_loop(context: Context, case: Case, steps: int) -> tuple[list[float], float]:
    """Seconds of each step, and the mean CPU time of the host's threads."""
    net = context.net(case.network)
    run = run_loop(context, net, OURS[case.loss], case.batch_size, steps, **case.options)
    return run.seconds, run.cpu


def time_obvious(context: Context, case: Case, steps: int) -> tuple[list[float], float]:
    """The same, in torch's defaults, which round convolutions to TF32."""
    make_net = partial(fresh, context.spec(case.network))
    cbdm, size = OURS[case.loss].regularises, context.size
    torch.backends.cudnn.allow_tf32 = True
    try:
        step = obvious_step(case.batch_size, make_net, context.device, cbdm=cbdm, size=size)
        context.turn(step, 2)
        costs = [context.turn(step) for _ in range(max(3, steps // 2))]
    finally:
        torch.backends.cudnn.allow_tf32 = False  # as the product has it
    return [cost.wall for cost in costs], fmean(cost.cpu for cost in costs)


def table(context: Context, todo: Sequence[Case]) -> str:
    """Markdown: speed of each case, share of the peak, ratios to DDPM and the obvious way."""
    seconds, noted = (context.bench.figures.get(name, {}) for name in ("train, s", "train"))

    def ratio(top: Case, bottom: Case) -> Ratio | str:
        pair = seconds.get(str(top)), seconds.get(str(bottom))
        if top == bottom or None in pair:
            return ""
        n = min(map(len, pair))
        return ratio_of_medians(pair[0][:n], pair[1][:n])

    rows = []
    for case in todo:
        row = noted.get(str(case), {})
        if "ms a step" not in row:
            rows.append([case, "out of memory" if row else "not measured"])
            continue
        of_ddpm = ratio(case, replace(case, loss=DDPM))
        obvious = ratio(replace(case, variant=OBVIOUS), case)
        share = f"{100e12 * row['TFLOP/s'] / context.peak_flops:.1f}"
        speed = row["ms a step"], f"{row['images/s']:,.0f}", row["TFLOP/s"], share
        rows.append([case, *speed, row["host CPU ms"], row.get("GiB", ""), of_ddpm, obvious])
    head = ["", "ms", "images/s", "TFLOP/s", "% of the peak", "host CPU ms", "GiB"]
    return markdown([*head, "/ DDPM", "obvious / it"], rows)
