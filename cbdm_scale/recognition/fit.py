"""Training and testing of a classifier: one function each, on one process or several.

Shapes: n = images of this rank in a step, C, H, W = image, K classes.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbdm_scale.data.loader import Batch
from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.devices import memory_words
from cbdm_scale.metrics.sources import Images
from cbdm_scale.recognition.confusion import confusion
from cbdm_scale.recognition.options import FitConfig
from cbdm_scale.training.distributed import World, gather_errors
from cbdm_scale.training.gradients import RunError
from cbdm_scale.training.loop import read_batch

_TEST_CHUNK = 250


def learning_rate(config: FitConfig, share: float) -> float:
    """The rate when a share of the training is over, in [0, 1).

    Up in a line, then constant; a hundredth from 0.8 on, a ten-thousandth from 0.9 on (epochs
    160 and 180 of 200).
    """
    if share < config.warmup:
        return config.lr * share / config.warmup
    return config.lr * (1e-4 if share >= 0.9 else 1e-2 if share >= 0.8 else 1)


def class_weights(counts: Tensor, beta: float) -> Tensor:
    """(1 - beta) / (1 - beta^n) of every class, their sum K (Cui et al., 2019): (K,) float32.

    counts (K,) are the training images; a class without one weighs nothing.
    """
    n = counts.double()
    weights = torch.where(n > 0, (1 - beta) / (1 - beta ** n.clamp_min(1)), 0.0)
    return (weights * len(n) / weights.sum()).float()


def fit(
    net: nn.Module,
    batches: Iterator[Batch],
    config: FitConfig,
    total_images: int,
    world: World,
    report: Callable[[int, float], None],
    stop: Callable[[], bool],
    weights: Tensor | None = None,
) -> bool:
    """Show ``total_images`` images to the network; False if it was asked to stop before.

    ``report`` gets images shown and the mean loss since the last report, on every rank;
    ``stop`` says whether this rank is asked to stop; ``weights`` (K,) are of the classes'
    losses, None is 1 each.

    RunError on every rank if a batch cannot be read anywhere or is too large for a GPU, or if
    the loss is not finite.
    """
    wrapped = world.wrap(net.train())
    optimizer = torch.optim.SGD(
        net.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay
    )
    losses: list[Tensor] = []
    shown, too_large = 0, ""
    while shown < total_images:
        # Read. Every rank says how it fares, so that all stop together or none does.
        batch = read_batch(batches)
        if _sync_stop(batch, too_large, stop, world):
            return False
        assert isinstance(batch, Batch), "a rank that failed has raised"

        # Compute gradients and update the weights. The others have queued a step that is too
        # large for this rank's GPU: it is told where they meet next.
        try:
            x = batch.x0.to(world.device, memory_format=torch.channels_last, non_blocking=True)
            _, logits = wrapped(x)
            y = batch.y.to(world.device, non_blocking=True)
            loss = F.cross_entropy(logits, y, weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, shown / total_images)
            optimizer.step()
        except torch.OutOfMemoryError as error:
            way_out = "Try a GPU that nothing else uses, or more --cluster.workers"
            too_large = memory_words(error, f"{len(batch.y)} images at once", way_out)
            loss = torch.tensor(torch.nan, device=world.device)
        losses.append(loss.detach())

        # Report.
        before, shown = shown, shown + config.batch_size
        if shown // config.log_every > before // config.log_every or shown >= total_images:
            mean = world.sum(torch.stack(losses).mean().cpu() / world.size)  # syncs
            if not mean.isfinite():
                raise RunError(
                    gather_errors(world, too_large)
                    or f"the loss is not finite after {shown:,} images. Try a lower --train.lr "
                    f"than {config.lr:g}, or a longer --train.warmup."
                )
            report(shown, mean.item())
            losses.clear()
    average_buffers(net, world)
    return True


def _sync_stop(
    batch: Batch | Exception, too_large: str, stop: Callable[[], bool], world: World
) -> bool:
    """True on all ranks if any is asked to stop; RunError on all if any cannot go on."""
    failed = isinstance(batch, Exception)
    flags = world.sum(torch.tensor([stop(), failed or bool(too_large)]).double())
    if flags[1]:
        words = f"reading the images failed. {type(batch).__name__}: {batch}" if failed else ""
        raise RunError(gather_errors(world, too_large or words))
    return bool(flags[0])


@torch.no_grad()
def average_buffers(net: nn.Module, world: World) -> None:
    """Give all ranks one network: each has seen its own share of every batch.

    The weights are the same everywhere; batch normalisation's running moments are not.
    """
    for buffer in net.buffers():
        mean = world.sum(buffer.double().cpu()) / world.size
        buffer.copy_(mean.to(buffer.dtype))


@torch.no_grad()
def count_confusion(net: nn.Module, images: Images, num_classes: int, world: World) -> Tensor:
    """How many test images of class i are taken for class j, (K, K), over all ranks."""
    net.eval()
    labels = torch.from_numpy(images.labels)
    table = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    mine = torch.arange(world.rank, images.count, world.size)
    with world.monitored_barrier():  # if a rank cannot read, all of them raise
        for numbers in mine.split(_TEST_CHUNK):
            x = torch.from_numpy(images.read(numbers.tolist())).to(world.device)
            x = to_model_range(x).contiguous(memory_format=torch.channels_last)
            _, logits = net(x)
            table += confusion(labels[numbers], logits.argmax(dim=1), num_classes)
    return world.sum(table)
