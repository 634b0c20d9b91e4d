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
from cbdm_scale.training.gradients import NonFiniteGuard, RunError, backward, clip_and_step
from cbdm_scale.training.meter import Meter
from cbdm_scale.training.options import TrainConfig
from cbdm_scale.training.state import State


@dataclass(frozen=True)
class TrainInputs:
    """What is learnt from what."""

    loss: Loss
    draw: Drawer
    batches: Iterator[Batch]
    seed: int
    allowed_bad: Callable[[int], float]
    """Damaged images that may be replaced until an image number, over all ranks."""


@dataclass(frozen=True)
class Callbacks:
    """What the loop calls beside the mathematics; every rank calls each."""

    report: Callable[[State, dict[str, float]], None]
    sample: Callable[[State], None]
    evaluate: Callable[[State], None]  # after the same state was saved
    save: Callable[[State], None]
    keep_averages: Callable[[State], None]
    stop: Callable[[], bool]
    save_now: Callable[[], bool]  # a node is about to go: save, and go on
    log: Callable[[str], None]


def is_due(num_seen: int, config: TrainConfig, every: int) -> bool:
    """Whether the step that ends at an image crosses a multiple of ``every``; never for 0."""
    return every > 0 and num_seen // every > (num_seen - config.batch_size) // every


def is_eval_due(num_seen: int, config: TrainConfig) -> bool:
    """Whether the step that ends at an image is followed by an evaluation."""
    before = num_seen - config.batch_size
    at_interval = is_due(num_seen, config, config.eval_every)
    return at_interval or any(before < at <= num_seen for at in config.eval_at)


def train(
    state: State, inputs: TrainInputs, config: TrainConfig, world: World, callbacks: Callbacks
) -> Literal["finished", "stopped"]:
    """Show ``config.total_images`` images to the network, from where ``state`` stands."""
    progress = state.progress
    module = torch.compile(state.net) if config.compile else state.net
    net = world.wrap(cast(nn.Module, module))
    guard, meter = NonFiniteGuard(config.max_bad_steps), Meter(world)
    gradients = partial(
        backward,
        net,
        inputs.loss,
        inputs.draw,
        world=world,
        micro_batch=config.micro_batch,
        precision=config.precision,
        channels_last=config.channels_last,
    )
    buckets_settled = world.size == 1

    while progress.num_seen < config.total_images:
        # Read. The ranks share their state, so that all stop together or none does.
        with meter.waiting():
            batch = read_batch(inputs.batches)
        action = sync_flags(batch, callbacks, state, inputs, config, world)
        if action != "continue":
            progress.skipped_steps += guard.flush()
            with meter.paused():
                callbacks.save(state)
        if action == "stop":
            return "stopped"
        assert isinstance(batch, Batch), "a rank that failed has raised"

        # DDP fixes the order of its reductions after its first backward. Give it one that
        # does not count, so that a resumed run reduces in the order of the unbroken one.
        if not buckets_settled:
            list(gradients(batch))
            buckets_settled = True

        # Compute gradients. Dropout is seeded by the step and the rank.
        torch.manual_seed(
            rng.make_key(inputs.seed, f"dropout/{progress.steps}/{world.rank}")[0]
        )
        state.optimizer.zero_grad(set_to_none=True)
        for terms in gradients(batch):
            meter.add(terms)

        # Update the weights and their average.
        lr = config.lr * min(progress.num_seen / max(config.warmup_images, 1), 1)
        norm = clip_and_step(state.optimizer, lr, config.max_grad_norm)
        progress.num_seen += config.batch_size
        progress.steps += 1
        state.ema.update(state.net, progress.num_seen, config.batch_size)
        for average in state.posthoc:
            average.update(state.net, progress.num_seen, config.batch_size)
        progress.skipped_steps += guard.record(norm, batch.keys)

        # Report, sample, evaluate and save.
        if is_due(progress.num_seen, config, config.log_every):
            numbers = meter.read() | {"lr": lr, "grad_norm": norm.item()}  # syncs
            callbacks.report(state, numbers)
        with meter.paused():
            if is_due(progress.num_seen, config, config.sample_every):
                callbacks.sample(state)
            if is_due(progress.num_seen, config, config.posthoc_every):
                callbacks.keep_averages(state)
            evaluates = is_eval_due(progress.num_seen, config)
            if evaluates or is_due(progress.num_seen, config, config.save_every):
                progress.skipped_steps += guard.flush()
                callbacks.save(state)
            if evaluates:
                callbacks.evaluate(state)
    progress.skipped_steps += guard.flush()
    return "finished"


def read_batch(batches: Iterator[Batch]) -> Batch | Exception:
    """The next batch, or why there is none: the other ranks have to know."""
    try:
        return next(batches)
    except Exception as error:
        return error


def sync_flags(
    batch: Batch | Exception,
    callbacks: Callbacks,
    state: State,
    inputs: TrainInputs,
    config: TrainConfig,
    world: World,
) -> Literal["continue", "save", "stop"]:
    """What all ranks do next, as any of them asks for; RunError if one cannot go on.

    Counts the images that replaced damaged ones, over all ranks, by class.
    """
    failed = isinstance(batch, Exception)
    replaced = () if isinstance(batch, Exception) else batch.substitutions
    mine = callbacks.stop(), callbacks.save_now(), failed, len(replaced)
    flags = world.sum(torch.tensor(mine).double())
    if flags[2]:
        reasons = world.gather(f"{type(batch).__name__}: {batch}" if failed else "")
        raise RunError("reading the data failed. " + " ".join(filter(None, reasons)))
    if flags[3]:
        progress = state.progress
        plain = [(s.sample_id, s.label, s.reason) for s in replaced]
        for image, label, reason in sorted(sum(world.gather(plain), [])):
            progress.substitutions[label] += 1
            callbacks.log(f"damaged: image {image} of the plan, {reason}")
        allowed = inputs.allowed_bad(progress.num_seen + config.batch_size)
        if sum(progress.substitutions) > allowed:
            counts = sorted(enumerate(progress.substitutions), key=lambda pair: -pair[1])
            most = ", ".join(f"{label} ({count})" for label, count in counts[:5] if count)
            raise RunError(
                f"{sum(progress.substitutions)} damaged images were replaced, more than "
                f"data.max_bad allows ({allowed:.0f}). Most are of the classes {most}. "
                "Make the shards again with python -m data_prep, or raise --data.max-bad."
            )
    return "stop" if flags[0] else "save" if flags[1] else "continue"
