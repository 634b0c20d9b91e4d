"""What a step would cost as one CUDA graph, until the product has it: draws, network, Adam."""

from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from benchmarks.gpu.context import COUNTS, Context
from benchmarks.gpu.loop import new_state
from benchmarks.step import CLIP, LR
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.training.gradients import ClippedAdam


def graphed_step(context: Context, loss: LossConfig, n: int) -> Callable[[], None]:
    """A step with all of its copies and draws."""
    device, shape = context.device, (3, context.size, context.size)
    state = new_state(context.net())
    update = ClippedAdam(state.optimizer, CLIP)
    objective, draw = build_loss(loss, LinearSchedule().to(device), COUNTS, 0, n)
    batch = context.batch(n)
    x0 = batch.x0.to(device, memory_format=torch.channels_last)
    y, drawn = batch.y.to(device), draw.on_host(batch.sample_ids).to(device)

    def body() -> Tensor:
        update.zero_grad()
        draws = draw.on_device(drawn, shape)
        with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
            terms = objective(state.net, x0, y, draws)
        (terms["total"].sum() / n).backward()
        norm = update.step(LR)
        state.ema.update(state.net, 10**6, n)
        return norm

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    pinned_x, pinned_y, begins = batch.x0.pin_memory(), batch.y.pin_memory(), count(0, n)

    def step() -> None:
        now = draw.on_host(batch.sample_ids + next(begins)).data
        drawn.data.copy_(now.pin_memory(), non_blocking=True)
        x0.copy_(pinned_x, non_blocking=True)
        y.copy_(pinned_y, non_blocking=True)
        graph.replay()

    return step
