"""The train loop. Reads top to bottom; knows neither Ray nor MLflow.

Shapes: n = images of this rank in a step, C, H, W = image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from cbdm_scale.data.loader import Batch
from cbdm_scale.devices import memory_words
from cbdm_scale.diffusion import rng
from cbdm_scale.losses.build import Loss
from cbdm_scale.losses.draws import Drawer
from cbdm_scale.storage.wording import prog_of
from cbdm_scale.training.checkpoint import TrainState
from cbdm_scale.training.device_transfer import MicroBatch, Transfer
from cbdm_scale.training.distributed import StopAsked, World, gather_errors
from cbdm_scale.training.gradients import DeviceMemoryError, NonFiniteGuard, RunError
from cbdm_scale.training.graph import graphed
from cbdm_scale.training.meter import Meter
from cbdm_scale.training.options import TrainConfig, per_rank
from cbdm_scale.training.step import Compiled, TrainStep, seed_dropout


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

    report: Callable[[TrainState, dict[str, float]], None]
    sample: Callable[[TrainState], None]  # may raise StopAsked, as ``evaluate``
    evaluate: Callable[[TrainState], None]  # after the same state was saved
    save: Callable[[TrainState], None]
    keep_averages: Callable[[TrainState], None]
    stop: Callable[[], bool]
    save_now: Callable[[], bool]  # a node is about to go: save, and go on
    log: Callable[[str], None]


def is_due(num_seen: int, config: TrainConfig, every: int) -> bool:
    """Whether the step that ends at an image crosses a multiple of ``every``; never for 0."""
    return every > 0 and num_seen // every > (num_seen - config.batch_size) // every


def is_grid_due(num_seen: int, config: TrainConfig) -> bool:
    """Whether the step that ends at an image is followed by a grid; never for 0."""
    looks = config.sample_every > 0 and _passes(num_seen, config)
    return is_due(num_seen, config, config.sample_every) or looks


def _passes(num_seen: int, config: TrainConfig) -> bool:
    """Whether the step that ends at an image comes to one of ``eval_at``."""
    return any(num_seen - config.batch_size < at <= num_seen for at in config.eval_at)


def is_eval_due(num_seen: int, config: TrainConfig) -> bool:
    """Whether the step that ends at an image is followed by an evaluation."""
    return is_due(num_seen, config, config.eval_every) or _passes(num_seen, config)


def train(
    state: TrainState,
    inputs: TrainInputs,
    config: TrainConfig,
    world: World,
    callbacks: Callbacks,
) -> Literal["finished", "stopped"]:
    """Show ``config.total_images`` images to the network, from where ``state`` stands.

    The host only queues work for the device, and is at most a step ahead of it: it reads what
    the device has computed for reports alone.
    """
    progress = state.progress
    net = world.wrap(Compiled(state.net, callbacks.log) if config.compile else state.net)
    step = TrainStep(state, net, inputs.loss, config, world)
    take_step = graphed(step, config, world, callbacks.log)
    guard, meter = NonFiniteGuard(config.max_bad_steps), Meter(world)
    feed = Feed(state, inputs, config, world, callbacks, meter)
    buckets_settled = world.size == 1

    if progress.num_seen < config.total_images:
        feed.begin()
    while progress.num_seen < config.total_images:
        # Take what was begun in the last step. The ranks share their state, so that all stop
        # together or none does.
        action = feed.agreed()
        if action != "continue":
            progress.skipped_steps += guard.flush()
            with meter.paused():
                callbacks.save(state)
        if action == "stop":
            return "stopped"
        batch, parts = feed.take()

        # Take the step. Dropout is seeded by the step and the rank.
        try:
            # DDP fixes the order of its reductions after its first backward. Give it one that
            # does not count, so that a resumed run reduces in the order of the unbroken one.
            if not buckets_settled:
                step.gradients(parts)
                buckets_settled = True
            dropout = f"dropout/{progress.steps}/{world.rank}"
            seed_dropout(world.device, rng.make_key(inputs.seed, dropout)[0])
            rates = step.rates(progress.num_seen)
            result = take_step(parts, rates)
        except torch.OutOfMemoryError as error:
            feed.begin(error)
            continue
        progress.num_seen += config.batch_size
        progress.steps += 1

        # While the device is at it, read and agree on the next.
        if progress.num_seen < config.total_images:
            feed.begin()
        for sums, part in zip(result.sums, parts, strict=True):
            meter.add(sums, len(part.y))
        progress.skipped_steps += guard.record(result.norm, batch.keys)
        feed.check_memory()

        # Report, save, sample and evaluate.
        if is_due(progress.num_seen, config, config.log_every):
            now = {"lr": float(rates.lr), "grad_norm": result.norm.item()}  # syncs
            callbacks.report(state, meter.read() | now)
        with meter.paused():
            if is_due(progress.num_seen, config, config.posthoc_every):
                callbacks.keep_averages(state)
            evaluates = is_eval_due(progress.num_seen, config)
            if evaluates or is_due(progress.num_seen, config, config.save_every):
                progress.skipped_steps += guard.flush()
                callbacks.save(state)
            try:
                if is_grid_due(progress.num_seen, config):
                    callbacks.sample(state)
                if evaluates:
                    callbacks.evaluate(state)
            except StopAsked:
                progress.skipped_steps += guard.flush()
                callbacks.save(state)
                return "stopped"
    progress.skipped_steps += guard.flush()
    return "finished"


def read_batch(batches: Iterator[Batch]) -> Batch | Exception:
    """The next batch, or why there is none: the other ranks have to know."""
    try:
        return next(batches)
    except Exception as error:
        return error


class Feed:
    """What the next step is given, begun while the device is still at the one before.

    The batch is read and on its way to the device, and the ranks are asked what they do next:
    ``begin`` waits for neither.
    """

    def __init__(
        self,
        state: TrainState,
        inputs: TrainInputs,
        config: TrainConfig,
        world: World,
        callbacks: Callbacks,
        meter: Meter,
    ):
        self.state, self.inputs, self.config = state, inputs, config
        self.world, self.callbacks, self.meter = world, callbacks, meter
        self.transfer = Transfer(
            inputs.draw,
            world.device,
            micro_batch=config.micro_batch,
            channels_last=config.channels_last,
        )

    def begin(self, failure: Exception | None = None) -> None:
        """Read a batch, or tell the others why this rank cannot go on."""
        with self.meter.waiting():
            self.batch = failure or read_batch(self.inputs.batches)
        failed, replaced = isinstance(self.batch, Exception), 0
        if isinstance(self.batch, Batch):
            replaced = len(self.batch.substitutions)
        memory = isinstance(self.batch, torch.OutOfMemoryError)
        mine = self.callbacks.stop(), self.callbacks.save_now(), failed, replaced, memory
        self.sum = self.world.begin_sum(torch.tensor(mine).double())
        self.flags: list[float] = []
        if isinstance(self.batch, Batch):
            self.parts = self.transfer.begin(self.batch)

    def check_memory(self) -> None:
        """DeviceMemoryError on every rank if the last step was too large for one of them.

        The others have queued it: what they report together has to wait for this.
        """
        self.flags = self.flags or self.sum().tolist()
        if self.flags[4]:
            words = ""
            if isinstance(self.batch, torch.OutOfMemoryError):
                words = out_of_memory(self.batch, self.config, self.world)
            raise DeviceMemoryError(gather_errors(self.world, words))

    def agreed(self) -> Literal["continue", "save", "stop"]:
        """What all ranks do next, as any of them asks for; RunError if one cannot go on.

        Counts the images that replaced damaged ones, over all ranks, by class.
        """
        self.check_memory()
        stop, save, failed, replaced, _ = self.flags
        if failed:
            words = ""
            if isinstance(self.batch, Exception):
                words = f"{type(self.batch).__name__}: {self.batch}"
            reasons = gather_errors(self.world, words)
            raise RunError(f"reading the data failed. {reasons}")
        if replaced:
            self._count_replaced()
        return "stop" if stop else "save" if save else "continue"

    def take(self) -> tuple[Batch, list[MicroBatch]]:
        """The batch, and its micro-batches on the device."""
        assert isinstance(self.batch, Batch), "a rank that failed has raised"
        return self.batch, self.transfer.finish(self.parts)

    def _count_replaced(self) -> None:
        progress, mine = self.state.progress, []
        if isinstance(self.batch, Batch):
            mine = [(s.sample_id, s.label, s.reason) for s in self.batch.substitutions]
        for image, label, reason in sorted(sum(self.world.gather(mine), [])):
            progress.substitutions[label] += 1
            self.callbacks.log(f"damaged: image {image} of the plan, {reason}")
        allowed = self.inputs.allowed_bad(progress.num_seen + self.config.batch_size)
        if sum(progress.substitutions) > allowed:
            counts = sorted(enumerate(progress.substitutions), key=lambda pair: -pair[1])
            most = ", ".join(f"{label} ({count})" for label, count in counts[:5] if count)
            raise RunError(
                f"{sum(progress.substitutions)} damaged images were replaced, more than "
                f"data.max_bad allows ({allowed:.0f}). Most are of the classes {most}. "
                f"Make the shards again with {prog_of('prepare')}, or raise --data.max-bad."
            )


def out_of_memory(error: Exception, config: TrainConfig, world: World) -> str:
    """What a GPU that is too small is told as, with the micro-batch to try."""
    share = per_rank(config.batch_size, world.size)
    at_once = min(config.micro_batch or share, share)
    way_out = (
        f"Try --train.micro-batch {at_once // 2}, which changes nothing but memory, and how "
        "many images terms compare that compare images"
        if at_once > 1
        else "Try --train.precision bf16, or a smaller network"
    )
    what = f"{at_once} images at once (train.micro_batch {config.micro_batch})"
    return memory_words(error, what, way_out)
