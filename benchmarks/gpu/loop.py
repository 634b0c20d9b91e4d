"""The product's own train loop, watched: each step's time, its reports, its gradient."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.context import Context
from benchmarks.step import COUNTS, HALFLIFE, LR, NUM_CLASSES
from cbdm_scale.data.loader import Batch
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.options import NoiseConfig, ProcessName
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.training import graph
from cbdm_scale.training.checkpoint import Progress, TrainState
from cbdm_scale.training.distributed import World
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.loop import Callbacks, TrainInputs, train
from cbdm_scale.training.options import TrainConfig
from cbdm_scale.training.power_ema import start_averages

WARM_UP = graph.WARM_UP + 2
"""Steps before the clock starts: what is recorded or tuned is so by then."""
NEVER = 10**12
EAGER = {"graph": "off"}
"""Options of a loop whose steps are no CUDA graph."""


def new_state(net: nn.Module, lr: float = LR, posthoc: bool = False) -> TrainState:
    """What the product trains: the network, its averages, a fused Adam."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=True)
    progress, averages = Progress(substitutions=[0] * NUM_CLASSES), start_averages(net, posthoc)
    return TrainState(net, EMA(net, HALFLIFE), optimizer, progress, averages)


def make_batch(n: int, size: int, first: int = 0, *, augment: bool = False) -> Batch:
    """n images of noise as a loader gives them, numbered from ``first``; ADA's if asked."""
    g = torch.Generator().manual_seed(7)
    x = torch.randint(0, 256, (n, 3, size, size), generator=g, dtype=torch.uint8)
    y = torch.multinomial(COUNTS.double(), n, replacement=True, generator=g)
    nine = torch.rand(n, 9, generator=g) - 0.5 if augment else None
    return Batch(x, y, torch.arange(n) + first, ("",) * n, (), nine)


def callbacks(**chosen: Callable[..., Any]) -> Callbacks:
    """Those that are named; the others do nothing."""
    names = ("report", "sample", "evaluate", "save", "keep_averages", "log")
    silent: dict[str, Any] = dict.fromkeys(names, lambda *given: None)
    return Callbacks(**{**silent, "stop": lambda: False, "save_now": lambda: False, **chosen})


@dataclass
class Clock:
    """Marks every step from ``warm_up`` on; asked once a step whether to stop."""

    context: Context
    warm_up: int
    during: Callable[[], AbstractContextManager[object]]
    """Entered when the first step that counts begins."""
    asked: int = 0
    marks: list[Any] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def __call__(self) -> bool:
        if self.asked == self.warm_up:
            self.context.sync()
            self.wall, self.cpu = time.perf_counter(), time.process_time()
            self.stack.enter_context(self.during())
        self.asked += 1
        if self.asked > self.warm_up:
            self.mark()
        return False

    def mark(self) -> None:
        """On the device's own time line, as the host may be ahead of it."""
        if self.context.is_cuda:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    def stop(self) -> None:
        """After the last step."""
        self.mark()
        self.stack.close()
        self.context.sync()
        steps = len(self.marks) - 1
        self.wall = (time.perf_counter() - self.wall) / steps
        self.cpu = (time.process_time() - self.cpu) / steps

    def seconds(self) -> list[float]:
        """Of each step."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if self.context.is_cuda:
            return [a.elapsed_time(b) / 1e3 for a, b in pairs]
        return [b - a for a, b in pairs]


@dataclass(frozen=True)
class Run:
    """What a run of the loop leaves."""

    state: TrainState
    seconds: list[float]
    """Of each step."""
    wall: float
    """Mean seconds of a step on the host's clock."""
    cpu: float
    """Mean CPU seconds of a step, of all threads of the host."""
    numbers: list[dict[str, float]]
    """Of every report."""


def run_loop(
    context: Context,
    net: nn.Module | TrainState,
    loss: LossConfig,
    batch_size: int,
    steps: int,
    *,
    warm_up: int | None = None,
    process: ProcessName = "ddpm",
    batch: Batch | None = None,
    during: Callable[[], AbstractContextManager[object]] = nullcontext,
    **options: Any,
) -> Run:
    """The product's loop on images in memory; ``options`` are TrainConfig's.

    net: a network to begin with, or the state of a run that goes on.
    """
    state = net if isinstance(net, TrainState) else new_state(net)
    if warm_up is None:
        warm_up = 1 if context.tiny else WARM_UP
    noise, begin = build_process(NoiseConfig(process=process), context.device), state.progress
    objective, draw = build_loss(loss, noise, COUNTS, 0, batch_size)
    held = batch or make_batch(batch_size, context.size)

    def source() -> Iterator[Batch]:
        for first in count(begin.num_seen, batch_size):
            yield replace(held, sample_ids=torch.arange(batch_size) + first)

    usual = {"log_every": NEVER, "save_every": NEVER, "sample_every": 0, "eval_every": 0}
    config = TrainConfig(
        total_images=begin.num_seen + batch_size * (warm_up + steps),
        batch_size=batch_size,
        **usual | options,
    )
    inputs = TrainInputs(objective, draw, source(), 0, lambda n: 0.0)
    clock = Clock(context, warm_up, during)
    numbers: list[dict[str, float]] = []
    hooks = callbacks(stop=clock, report=lambda state, found: numbers.append(found))
    with clock.stack:
        train(state, inputs, config, World(str(context.device)), hooks)
        clock.stop()
    return Run(state, clock.seconds(), clock.wall, clock.cpu, numbers)
