"""The product's own train loop, timed: a state, callbacks that do nothing, a clock."""

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.context import COUNTS, NUM_CLASSES, Context, make_batch
from benchmarks.step import HALFLIFE, LR
from benchmarks.timing import Cost
from cbdm_scale.data.loader import Batch
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.options import NoiseConfig
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.training.distributed import OneProcess
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.loop import Callbacks, TrainInputs, train
from cbdm_scale.training.options import TrainConfig
from cbdm_scale.training.power_ema import start_averages
from cbdm_scale.training.state import Progress, State

WARM_UP = 5
"""Steps before the clock starts."""
NEVER = 10**12


def new_state(net: nn.Module, lr: float = LR, posthoc: bool = False) -> State:
    """What the product trains: the network, its averages, a fused Adam."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=True)
    progress = Progress(substitutions=[0] * NUM_CLASSES)
    return State(net, EMA(net, HALFLIFE), optimizer, progress, start_averages(net, posthoc))


def callbacks(**chosen: Callable[..., Any]) -> Callbacks:
    """Those that are named; the others do nothing."""

    def nothing(*given: object) -> None:
        return None

    def never() -> bool:
        return False

    names = ("report", "sample", "evaluate", "save", "keep_averages", "log")
    silent: dict[str, Any] = dict.fromkeys(names, nothing)
    return Callbacks(**{**silent, "stop": never, "save_now": never, **chosen})


class Clock:
    """Starts when the loop has made so many steps; asked once a step whether to stop."""

    def __init__(self, context: Context, warm_up: int):
        self.context, self.warm_up, self.asked = context, warm_up, 0

    def __call__(self) -> bool:
        if self.asked == self.warm_up:
            self.context.sync()
            self.wall, self.cpu = time.perf_counter(), time.process_time()
        self.asked += 1
        return False

    def cost(self) -> Cost:
        """Of a step, until now."""
        self.context.sync()
        steps = self.asked - self.warm_up
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return Cost(wall / steps, cpu / steps)


def run_loop(
    context: Context,
    net: nn.Module,
    loss: LossConfig,
    batch_size: int,
    steps: int,
    *,
    warm_up: int = WARM_UP,
    size: int | None = None,
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> Cost:
    """A step of the product's loop, from batches in memory; ``options`` are TrainConfig's."""
    process = build_process(NoiseConfig(), context.device)
    objective, draw = build_loss(loss, process, COUNTS, 0, batch_size)
    kept = make_batch(batch_size, size or context.size)

    def source() -> Iterator[Batch]:
        for first in count(0, batch_size):
            yield Batch(kept.x0, kept.y, kept.sample_ids + first, kept.keys, ())

    config = TrainConfig(
        total_images=batch_size * (warm_up + steps),
        batch_size=batch_size,
        log_every=NEVER,
        save_every=NEVER,
        sample_every=0,
        eval_every=0,
        **options,
    )
    inputs = TrainInputs(objective, draw, source(), 0, lambda n: 0.0)
    clock = Clock(context, warm_up)

    def ask() -> bool:
        clock()
        return stop() if stop else False

    train(new_state(net), inputs, config, OneProcess(str(context.device)), callbacks(stop=ask))
    return clock.cost()
