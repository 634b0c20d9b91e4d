"""Milliseconds of the host in a step beside its network, against the obvious way.

The network has the layers of the paper's U-Net and next to no work in them, so that the device
waits for the host and not the host for the device.
"""

from dataclasses import asdict
from operator import sub

import torch

from benchmarks.gpu.context import Context, fresh
from benchmarks.gpu.loop import EAGER, make_batch, run_loop
from benchmarks.step import NUM_CLASSES, OBVIOUS, obvious_step
from benchmarks.timing import Cost, Samples, Variant, interleave, table
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec

ALONE, LOOP, GRAPH = "the network alone", "the train loop", "the train loop, CUDA graph"
SPEC = NetworkSpec(
    model=UNetConfig(channels=4, groups=2), channels=3, image_size=8, num_classes=NUM_CLASSES
)


def host(context: Context) -> None:
    """CBDM: all of them in turns, and what each takes beside forward and backward."""
    n, steps, repetitions = (2, 2, 1) if context.tiny else (16, 20, 8)
    net, device, batch = fresh(SPEC).to(context.device), context.device, make_batch(n, 8)
    x = torch.randn(2 * n, 3, 8, 8, device=device)
    y = torch.zeros(2 * n, dtype=torch.int64, device=device)

    def alone() -> None:
        net.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            net(x, y, y).sum().backward()

    def loop(**options: str) -> Cost:
        there = fresh(SPEC).to(device)
        run = run_loop(context, there, LossConfig(), n, steps, batch=batch, **options)
        return Cost(run.wall, run.cpu)

    obvious = obvious_step(n, lambda: fresh(SPEC), device, size=8)
    variants: dict[str, Variant] = {
        ALONE: lambda: context.turn(alone, steps),
        OBVIOUS: lambda: context.turn(obvious, steps),
        LOOP: lambda: loop(**EAGER),
    }
    if context.is_cuda:
        variants[GRAPH] = lambda: loop(graph="on")
    for warm_up in (alone, obvious):
        warm_up()
    *_, samples = interleave(variants, repetitions)
    context.bench.figures["host"] = {name: asdict(s) for name, s in samples.items()}
    of = samples.pop(ALONE)
    beside = {
        name: Samples([*map(sub, s.wall, of.wall)], [*map(sub, s.cpu, of.cpu)])
        for name, s in samples.items()
    }
    about = "A step of CBDM beside its network's forward and backward:"
    context.tables.append(f"{about}\n\n{table(beside, over=[OBVIOUS], unit='ms')}")
