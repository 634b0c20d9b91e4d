"""Where a run begins: rank 0 reads it from storage, the other ranks hear it from rank 0.

Left to themselves all ranks would read the same gigabyte at every restart.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.checkpoint import (
    TrainState,
    load_initial,
    load_newest,
    optimizer_tensors,
)
from cbdm_scale.training.distributed import World
from cbdm_scale.training.power_ema import pack


def resume(
    folder: Storage,
    state: TrainState,
    world: World,
    log: Callable[[str], None],
    *,
    fine_tunes: bool,
) -> bool:
    """Fill ``state`` on every rank; whether a checkpoint was there. Every rank comes here.

    From the newest whole checkpoint, or of a run that ``fine_tunes`` from what it starts from.
    """
    name, initial = None, ""
    with world.monitored_barrier():  # a store may take its time
        if world.rank == 0:
            name, damaged = load_newest(folder, state)
            for line in damaged:
                log(f"skipped: {line}")
            if name:
                log(f"resumed from {folder.path(name)}")
            elif fine_tunes:
                initial = load_initial(folder, state.net, state.ema.net)
                log(f"started from {initial}")
    name, initial = world.gather((name, initial))[0]
    if world.size > 1 and (name or initial):
        broadcast(state, world)
    return name is not None


def load_teacher(folder: Storage, net: nn.Module, world: World) -> nn.Module:
    """What the run started from, frozen, in eval mode: the teacher of a second stage.

    ``net`` is the run's own network, before it is filled: a layer that the teacher lacked adds
    nothing there. Every rank comes here.
    """
    teacher = copy.deepcopy(net).eval().requires_grad_(False)
    with world.monitored_barrier():
        if world.rank == 0:
            load_initial(folder, teacher)
    if world.size > 1:
        world.broadcast([*teacher.state_dict().values()])
    return teacher


def broadcast(state: TrainState, world: World) -> None:
    """Make the state of every rank that of rank 0, bit for bit."""
    names, progress = world.gather((list(optimizer_tensors(state)), state.progress))[0]
    if world.rank:
        state.progress = progress
        _make_room(state, names)
    moments = optimizer_tensors(state)
    held: list[Tensor] = [moments[name] for name in names]
    for net in (state.net, state.ema.net):
        held += net.state_dict().values()
    world.broadcast([*held, *pack(state.posthoc).values()])


def _make_room(state: TrainState, names: list[str]) -> None:
    """Give an optimiser that has made no step the tensors of these names, yet to be filled."""
    parameters = dict(state.net.named_parameters())
    for name in names:
        kind, _, of = name.partition(".")
        parameter = parameters[of]
        like = torch.empty_like(parameter, requires_grad=False)
        room = like.new_zeros(()) if kind == "step" else like
        state.optimizer.state[parameter][kind] = room
