"""The train loop. Reads top to bottom; knows neither Ray nor MLflow.

Shapes: n = images of this rank in a step, C, H, W = image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from torch import nn

from cbdm_scale.data.loader import Batch
from cbdm_scale.diffusion import rng
from cbdm_scale.losses.build import Loss
from cbdm_scale.losses.draws import Drawer
from cbdm_scale.training.distributed import World
from cbdm_scale.training.gradients import Guard, RunError, backward, clip_and_step
from cbdm_scale.training.meter import Meter
from cbdm_scale.training.options import TrainConfig
from cbdm_scale.training.state import State


@dataclass(frozen=True)
class Task:
    """What is learnt from what."""

    loss: Loss
    draw: Drawer
    batches: Iterator[Batch]
    seed: int
    allowed_bad: Callable[[int], float]
    """Damaged images that may be replaced until an image number, over all ranks."""


@dataclass(frozen=True)
class Hooks:
    """What the loop calls besides the mathematics; every rank calls each."""

    report: Callable[[State, dict[str, float]], None]
    sample: Callable[[State], None]
    evaluate: Callable[[State], None]  # after the same state was saved
    save: Callable[[State], None]
    keep_averages: Callable[[State], None]
    stop: Callable[[], bool]
    leave: Callable[[], bool]  # a node is about to go: save now, and go on
    say: Callable[[str], None]


def due(state: State, config: TrainConfig, every: int) -> bool:
    """True on the step that crosses a multiple of ``every``; never for 0."""
    return crosses(state.progress.num_seen, config.batch_size, every)


def crosses(images: int, batch_size: int, every: int) -> bool:
    """Whether the step that ends at ``images`` crosses a multiple of ``every``."""
    return every > 0 and images // every > (images - batch_size) // every


def examined(images: int, config: TrainConfig) -> bool:
    """Whether the step that ends at ``images`` is followed by an evaluation."""
    batch = config.batch_size
    at_interval = crosses(images, batch, config.eval_every)
    return at_interval or any(images - batch < at <= images for at in config.eval_at)


def train(
    state: State, task: Task, config: TrainConfig, world: World, hooks: Hooks
) -> Literal["finished", "stopped"]:
    """Show ``config.total_images`` images to the network, from where ``state`` stands."""
    progress = state.progress
    module = torch.compile(state.net) if config.compile else state.net
    net = world.wrap(cast(nn.Module, module))
    guard, meter = Guard(config.max_bad_steps), Meter(world)
    gradients = partial(
        backward,
        net,
        task.loss,
        task.draw,
        world=world,
        micro_batch=config.micro_batch,
        precision=config.precision,
        channels_last=config.channels_last,
    )
    rehearsed = world.size == 1

    while progress.num_seen < config.total_images:
        # Read. Every rank says how it fares, so that all stop together or none does.
        with meter.waiting():
            batch = read(task.batches)
        wish = agree(batch, hooks, state, task, config, world)
        if wish != "go on":
            progress.skipped_steps += guard.settle()
            with meter.paused():
                hooks.save(state)
        if wish == "stop":
            return "stopped"
        assert isinstance(batch, Batch), "a rank that failed has raised"

        # DDP settles the order of its reductions after its first backward. Give it one that
        # does not count, so that a resumed run reduces in the order of the unbroken one.
        if not rehearsed:
            list(gradients(batch))
            rehearsed = True

        # Compute gradients. Dropout is seeded by the step and the rank.
        torch.manual_seed(rng.make_key(task.seed, f"dropout/{progress.steps}/{world.rank}")[0])
        state.optimizer.zero_grad(set_to_none=True)
        for terms in gradients(batch):
            meter.add(terms)

        # Update the weights and their average.
        lr = config.lr * min(progress.num_seen / max(config.warmup_images, 1), 1)
        norm = clip_and_step(state.optimizer, lr, config.clip)
        progress.num_seen += config.batch_size
        progress.steps += 1
        state.ema.update(state.net, progress.num_seen, config.batch_size)
        for average in state.posthoc:
            average.update(state.net, progress.num_seen, config.batch_size)
        progress.skipped_steps += guard.look(norm, batch.keys)

        # Report, sample, evaluate and save.
        if due(state, config, config.log_every):
            numbers = meter.read() | {"lr": lr, "grad_norm": norm.item()}  # syncs
            hooks.report(state, numbers)
        with meter.paused():
            if due(state, config, config.sample_every):
                hooks.sample(state)
            if due(state, config, config.posthoc_every):
                hooks.keep_averages(state)
            examines = examined(progress.num_seen, config)
            if examines or due(state, config, config.save_every):
                progress.skipped_steps += guard.settle()
                hooks.save(state)
            if examines:
                hooks.evaluate(state)
    progress.skipped_steps += guard.settle()
    return "finished"


def read(batches: Iterator[Batch]) -> Batch | Exception:
    """The next batch, or why there is none: the other ranks must hear of it."""
    try:
        return next(batches)
    except Exception as error:
        return error


def agree(
    batch: Batch | Exception,
    hooks: Hooks,
    state: State,
    task: Task,
    config: TrainConfig,
    world: World,
) -> Literal["go on", "save", "stop"]:
    """The same on all ranks, if any was told to stop or to save; RunError if any cannot go on.

    Counts the images that stood in for damaged ones, over all ranks, by class.
    """
    failed = isinstance(batch, Exception)
    stand_ins = () if isinstance(batch, Exception) else batch.substitutions
    told_to = hooks.stop(), hooks.leave()
    flags = world.sum(torch.tensor([*told_to, failed, len(stand_ins)]).double())
    if flags[2]:
        told = world.gather(f"{type(batch).__name__}: {batch}" if failed else "")
        raise RunError("reading the data failed. " + " ".join(filter(None, told)))
    if flags[3]:
        progress = state.progress
        plain = [(s.image, s.label, s.reason) for s in stand_ins]
        for image, label, reason in sorted(sum(world.gather(plain), [])):
            progress.substitutions[label] += 1
            hooks.say(f"damaged: image {image} of the plan, {reason}")
        allowed = task.allowed_bad(progress.num_seen + config.batch_size)
        if sum(progress.substitutions) > allowed:
            raise RunError(
                f"{sum(progress.substitutions)} damaged images were replaced, more than "
                f"data.max_bad allows ({allowed:.0f}). Per class: {progress.substitutions}. "
                "Make the shards again with python -m data_prep, or raise --data.max-bad."
            )
    return "stop" if flags[0] else "save" if flags[1] else "go on"
