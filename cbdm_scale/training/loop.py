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
from cbdm_scale.losses import Drawer, Loss
from cbdm_scale.training.distributed import World
from cbdm_scale.training.gradients import Guard, RunError, backward, clip_and_step
from cbdm_scale.training.meter import Meter
from cbdm_scale.training.state import State


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    total_images: int = 19_200_000
    """Images shown to the network, all ranks together (the authors' 300k steps of 64)."""

    batch_size: int = 64
    """Images per optimiser step, all ranks together."""

    micro_batch: int = 0
    """Images per rank that go through the network at once; 0 is all of the rank's share."""

    lr: float = 2e-4
    """Learning rate of Adam after the warm-up."""

    warmup_images: int = 320_000
    """Images over which the learning rate rises linearly from 0 (the authors' 5,000 steps)."""

    clip: float = 1.0
    """Largest norm of the gradient; larger ones are scaled down to it."""

    ema_halflife: float = 443_600
    """Half-life of the averaged weights in images (the authors' 0.9999 a step of 64)."""

    ema_ramp: float = 0.0
    """Cap of the half-life as a share of the images seen; 0 is none, as in the paper."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 autocast for the network (weights, EMA, losses and norms stay fp32), or fp32."""

    channels_last: bool = True
    """Memory layout of the network's tensors."""

    compile: bool = False
    """Compile the network with torch.compile."""

    log_every: int = 51_200
    """Images between two reports of losses and speed."""

    save_every: int = 640_000
    """Images between two checkpoints."""

    sample_every: int = 1_280_000
    """Images between two sample grids; 0 for none."""

    eval_every: int = 3_200_000
    """Images between two evaluations by FID, each of a checkpoint that is saved then; 0 for one
    at the end only."""

    posthoc_every: int = 0
    """Images between two kept pairs of averages, from which sample and evaluate find that of
    any width (--weights power:0.1); 0 for none. They cost two more copies of the network."""

    eval_at: tuple[int, ...] = ()
    """Further numbers of images after which to evaluate, such as the rungs of a search."""

    keep: int = 3
    """Newest checkpoints to keep, besides the best and those that wait for an evaluation."""

    max_bad_steps: int = 5
    """Steps in a row with a gradient that is not finite, after which the run stops."""

    def __post_init__(self) -> None:
        for option in ("total_images", "batch_size", "log_every", "save_every", "keep"):
            if getattr(self, option) < 1:
                raise ValueError(
                    f"train.{option} must be at least 1, got {getattr(self, option)}."
                )
        for option in ("lr", "clip", "ema_halflife"):
            if not getattr(self, option) > 0:
                raise ValueError(
                    f"train.{option} must be above 0, got {getattr(self, option)}."
                )
        intervals = ("sample_every", "eval_every", "posthoc_every")
        for option in ("micro_batch", "warmup_images", *intervals):
            if getattr(self, option) < 0:
                raise ValueError(f"train.{option} must not be negative. Try 0.")
        if min(self.eval_at, default=1) < 1:
            raise ValueError(
                f"train.eval_at must be numbers of images above 0, got {self.eval_at}."
            )

    def per_rank(self, world_size: int) -> int:
        """Images of a rank in a step; a ValueError says which batch would divide."""
        if self.batch_size % world_size:
            smaller = self.batch_size // world_size * world_size
            raise ValueError(
                f"train.batch_size ({self.batch_size}) must be divisible by the number of "
                f"workers ({world_size}). Try --train.batch-size {smaller or world_size}."
            )
        return self.batch_size // world_size


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
    return crosses(state.progress.images, config.batch_size, every)


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

    while progress.images < config.total_images:
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
        lr = config.lr * min(progress.images / max(config.warmup_images, 1), 1)
        norm = clip_and_step(state.optimizer, lr, config.clip)
        progress.images += config.batch_size
        progress.steps += 1
        state.ema.update(state.net, progress.images, config.batch_size)
        for average in state.posthoc:
            average.update(state.net, progress.images, config.batch_size)
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
            examines = examined(progress.images, config)
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
        allowed = task.allowed_bad(progress.images + config.batch_size)
        if sum(progress.substitutions) > allowed:
            raise RunError(
                f"{sum(progress.substitutions)} damaged images were replaced, more than "
                f"data.max_bad allows ({allowed:.0f}). Per class: {progress.substitutions}. "
                "Make the shards again with python -m data_prep, or raise --data.max-bad."
            )
    return "stop" if flags[0] else "save" if flags[1] else "go on"
