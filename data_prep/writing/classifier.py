"""Train the small classifier whose features compare real and generated images offline.

It is fitted to nine tenths of the balanced real images; the seeded tenth that is left out only
measures it, so that the accuracy reported is that of the very weights that are stored.
Shapes: N = images, C = channels, H = height, W = width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.cluster.progress import SILENCE_S, ProgressBar
from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.models.resnet import init_he

BATCH_SIZE = 128
PEAK_RATE = 4e-3  # of AdamW, up and down again over the fit
SHARE_HELD_OUT = 10  # one image in ten
SMALL_SET = 1_000_000  # pixels, below which threads cost more than they give


def default_epochs(num_images: int) -> int:
    """Epochs that show about 400,000 images, at least 8 and at most 20."""
    return min(max(400_000 // max(num_images, 1), 8), 20)


def train_classifier(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    epochs: int | None = None,
    seed: int = 0,
    flip: bool = False,
) -> tuple[bytes, dict[str, float]]:
    """Fit a classifier to images (N, C, H, W): its file, and how right it is.

    class_names (K,) in the order of the labels go into the file. The latter is accuracy_train
    and accuracy_held_out (left out below ten images). The same images, seed, torch and
    instruction set give the same file; a large set also needs the same number of threads.
    ``flip`` also shows mirrored images: right for objects, wrong for digits. Prints one line an
    epoch, and one a minute within.
    """
    num_classes = len(class_names)
    _check(images, labels, num_classes)
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(images), torch.from_numpy(labels).long()
    order = torch.randperm(len(x), generator=rng)
    held_out, kept = order.tensor_split([len(x) // SHARE_HELD_OUT])
    net = _new_net(x.shape[1], x.shape[2], num_classes, rng)
    num_epochs = default_epochs(len(kept)) if epochs is None else epochs
    with _threads(1 if x[:, 0].numel() < SMALL_SET else torch.get_num_threads()):
        _fit(net, x, y, kept, num_epochs, rng, flip)
        metrics = {"accuracy_train": _accuracy(net, x, y, kept)}
        if len(held_out):
            metrics["accuracy_held_out"] = _accuracy(net, x, y, held_out)
    print("classifier: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()), flush=True)
    return save_classifier(net, class_names), metrics


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with this many threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check(images: NDArray[np.uint8], labels: NDArray[np.int64], num_classes: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"images must be (N, C, H, H) uint8, got {images.shape} {images.dtype}"
        )
    if len(images) < 2 or len(labels) != len(images):
        raise ValueError(
            f"a classifier needs at least 2 images with a label each, got {len(images)} images "
            f"and {len(labels)} labels"
        )
    if not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels must be in 0..{num_classes - 1}, got {labels.min()}..{labels.max()}"
        )


def _new_net(
    image_channels: int, image_size: int, num_classes: int, rng: torch.Generator
) -> SmallClassifier:
    """A classifier with weights from ``rng`` alone; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        net = SmallClassifier(
            image_channels=image_channels, image_size=image_size, num_classes=num_classes
        )
    init_he(net, rng)
    return net.to(memory_format=torch.channels_last)


def _shift(x: Tensor, rng: torch.Generator) -> Tensor:
    """Move a batch by up to an eighth of its side, one draw for all of it."""
    size = x.shape[-1]
    reach = size // 8
    top, left = torch.randint(2 * reach + 1, (2,), generator=rng).tolist()
    padded = F.pad(x, [reach] * 4, mode="replicate")
    return padded[:, :, top : top + size, left : left + size]


def _fit(
    net: SmallClassifier,
    x: Tensor,
    y: Tensor,
    kept: Tensor,
    epochs: int,
    rng: torch.Generator,
    flip: bool,
) -> None:
    net.train()
    steps_per_epoch = max(len(kept) // BATCH_SIZE, 1)  # the rest of an epoch is left out
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    total = max(epochs * steps_per_epoch, 1)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=total)
    shown = ProgressBar(total, "steps of the classifier", every_s=SILENCE_S)
    for epoch in range(epochs):
        order = kept[torch.randperm(len(kept), generator=rng)]
        total_loss = 0.0
        for index in order[: steps_per_epoch * BATCH_SIZE].split(BATCH_SIZE):
            batch = _shift(to_model_range(x[index]), rng)
            if flip:
                mirrored = torch.rand(len(index), generator=rng) < 0.5
                batch = torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(3), batch)
            _, logits = net(batch.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            total_loss += loss.item()
            shown.add(1)
        mean = total_loss / steps_per_epoch
        shown.log(f"classifier: epoch {epoch + 1}/{epochs}, loss {mean:.4f}")
    shown.screen.close()
    net.eval()


@torch.no_grad()
def _accuracy(net: SmallClassifier, x: Tensor, y: Tensor, index: Tensor) -> float:
    hits = 0
    for part in index.split(1000):
        _, logits = net(to_model_range(x[part]).contiguous(memory_format=torch.channels_last))
        hits += int((logits.argmax(dim=1) == y[part]).sum())
    return hits / len(index)
