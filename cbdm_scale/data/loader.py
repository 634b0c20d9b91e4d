"""Batches of the sample plan, read and decoded off the training thread.

Shapes: n = images of a rank in a step, C, H, W = image.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from cbdm_scale.data.augment import Augmentation, AugmentName
from cbdm_scale.data.plan import SamplePlan, slots
from cbdm_scale.data.shards import BadSample, ShardReader


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    root: str = "~/cbdm_scale/shards"
    """Folder or URL that holds the data sets made by `python -m data_prep`."""

    flip: bool = True
    """Flip images horizontally, each with probability 1/2."""

    augment: AugmentName = "none"
    """ada (geometry; the network is told of it), diffaug (colour, shift, cutout) or none."""

    augment_p: float = 0.12
    """Probability of each of ADA's transformations; `flip` keeps its own 1/2."""

    processes: int = 0
    """Processes that read and decode, per worker; 0 is a thread of the worker."""

    prefetch: int = 4
    """Batches read ahead, per process (or by the thread)."""

    max_bad: float = 0.01
    """Share of the planned images that may be replaced because they are damaged."""

    def __post_init__(self) -> None:
        if self.processes < 0:
            raise ValueError(f"data.processes must be 0 or more, got {self.processes}. Try 0.")
        if self.prefetch < 1:
            raise ValueError(f"data.prefetch must be at least 1, got {self.prefetch}. Try 4.")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"data.max_bad must lie in [0, 1], got {self.max_bad}. Try 0.01.")
        if self.augment not in get_args(AugmentName):
            raise ValueError(
                f"data.augment ({self.augment}) is no augmentation. "
                f"Choose {' or '.join(get_args(AugmentName))}."
            )
        if not 0 <= self.augment_p <= 1:
            raise ValueError(
                f"data.augment_p must lie in [0, 1], got {self.augment_p}. Try 0.12."
            )

    def augmentation(self, seed: int) -> Augmentation:
        return Augmentation(name=self.augment, p=self.augment_p, flip=self.flip, seed=seed)

    @property
    def tells_augmentation(self) -> bool:
        """Whether the network hears ADA's nine numbers, and so needs an embedding of them."""
        return self.augment == "ada"


@dataclass(frozen=True)
class Substitution:
    """One planned image that could not be read, and why."""

    image: int
    label: int
    reason: str


@dataclass(frozen=True)
class Batch:
    x0: Tensor  # (n, C, H, W) float32 in [-1, 1], which DiffAug's colours may leave
    y: Tensor  # (n,) int64
    images: Tensor  # (n,) int64, numbers since the run began
    keys: tuple[str, ...]
    substitutions: tuple[Substitution, ...]
    augment: Tensor | None = None  # (n, 9) float32, what ADA did


class PlannedImages:
    """The images of a plan by their numbers: a map-style dataset whose items are batches."""

    def __init__(self, reader: ShardReader, plan: SamplePlan, augmentation: Augmentation):
        self.reader, self.plan, self.augmentation = reader, plan, augmentation

    def __getstate__(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "reader": self.reader,
            "plan": (plan.sizes.tolist(), plan.seed, plan.num_streams),
            "augmentation": self.augmentation,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        sizes, seed, num_streams = state.pop("plan")
        self.__dict__.update(state)
        self.plan = SamplePlan(sizes, seed, num_streams=num_streams)

    def __getitem__(self, images: Tensor) -> Batch:
        """Read images (n,). A damaged one gives its slot to the next readable of its stream."""
        pixels, rows, substitutions = [], [], []
        for image, row in zip(images.tolist(), self.plan.rows(images.numpy()), strict=True):
            try:
                pixels.append(self.reader.load(row))
            except BadSample as error:
                label = int(self.reader.index.labels[row])
                substitutions.append(Substitution(image, label, str(error)))
                row, pixel = self._stand_in(image)
                pixels.append(pixel)
            rows.append(row)
        x0 = torch.from_numpy(np.stack(pixels)).float().div_(127.5).sub_(1)
        x0, augment = self.augmentation(x0, images)
        index = self.reader.index
        y = torch.from_numpy(index.labels[rows].astype(np.int64))
        keys = tuple(index.key(row) for row in rows)
        return Batch(x0, y, images, keys, tuple(substitutions), augment)

    def _stand_in(self, image: int) -> tuple[int, np.ndarray]:
        for row in islice(self.plan.successors(image), 10_000):
            try:
                return row, self.reader.load(row)
            except BadSample:
                continue
        raise ValueError(
            f"data.root ({self.reader.root}): no readable image is left in the stream of image "
            f"{image}. Verify the shards, or make them again with python -m data_prep."
        )


def load_batches(
    dataset: PlannedImages,
    config: DataConfig,
    *,
    start: int,
    batch_size: int,
    rank: int,
    world_size: int,
) -> Iterator[Batch]:
    """The batches of one rank from image ``start`` on, for ever, in the plan's order."""

    def steps() -> Iterator[Tensor]:
        image = start
        while True:
            yield slots(image, batch_size, rank, world_size)
            image += batch_size

    if config.processes:
        server = torch.multiprocessing.get_context("forkserver")
        server.set_forkserver_preload([__name__])  # torch is imported once, not per process
        loader: Iterable[Batch] = torch.utils.data.DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=None,
            sampler=steps(),
            num_workers=config.processes,
            prefetch_factor=config.prefetch,
            multiprocessing_context=server,
        )
        yield from loader
        return
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as thread:
        ahead = (thread.submit(dataset.__getitem__, images) for images in steps())
        queue = deque(islice(ahead, config.prefetch))
        try:
            while True:
                yield queue.popleft().result()
                queue.append(next(ahead))
        finally:
            for waiting in queue:
                waiting.cancel()
