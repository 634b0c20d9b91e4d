"""Batches of the sample plan, read and decoded off the training thread.

Shapes: n = images of a rank in a step, C, H, W = image.
"""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.data.augment import Augmentation, flip_where
from cbdm_scale.data.loader_processes import batches_of_processes, leave_with_parent
from cbdm_scale.data.options import DataConfig
from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.data.plan import Plan, slots
from cbdm_scale.data.shards import BadSample, ShardReader
from cbdm_scale.storage.wording import prog_of


@dataclass(frozen=True)
class Substitution:
    """One planned image that could not be read, and why."""

    sample_id: int
    label: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """Images as few bytes: what is left to do to them is done where the network is."""

    x: Tensor  # (n, C, H, W) uint8; float32 where an augmentation has made it so
    y: Tensor  # (n,) int64
    sample_ids: Tensor  # (n,) int64, numbers since the run began
    keys: tuple[str, ...]
    substitutions: tuple[Substitution, ...]
    augment: Tensor | None = None  # (n, 9) float32, what ADA did
    mirrored: Tensor | None = None  # (n,) bool, which of x are to be mirrored; None: none

    def __reduce__(self) -> tuple[Any, ...]:
        """Small tensors go to another process as arrays, along in the message: a tensor costs a
        file and its pages at both ends."""
        y, sample_ids = self.y.numpy(), self.sample_ids.numpy()
        mirrored = None if self.mirrored is None else self.mirrored.numpy()
        about = self.keys, self.substitutions, self.augment
        return _received, (self.x, y, sample_ids, *about, mirrored)

    @property
    def x0(self) -> Tensor:
        """(n, C, H, W) float32 in [-1, 1], which DiffAug's colours may leave."""
        return to_x0(self.x, self.mirrored)


def to_x0(x: Tensor, mirrored: Tensor | None) -> Tensor:
    """The images x0 of a batch, (n, C, H, W) float32, with the same bits on every device."""
    x = x if mirrored is None else flip_where(mirrored, x, -1)
    return to_model_range(x) if x.dtype == torch.uint8 else x


def _received(*fields: Any) -> Batch:
    """What another process sent, its arrays as tensors."""
    values: list[Any] = [
        torch.from_numpy(field) if isinstance(field, np.ndarray) else field for field in fields
    ]
    return Batch(*values)


class BatchSource(Protocol):
    """Gives the batch of any images of a plan, by their numbers since the run began (n,)."""

    def __getitem__(self, sample_ids: Tensor) -> Batch: ...


def shards_at_once(plan: Plan) -> int:
    """Shards that a step may read, and as many that the next ones go on to."""
    return 2 * plan.num_streams if len(plan.sizes) > 1 else sys.maxsize


class PlannedImages:
    """The images of a plan by their numbers: a map-style dataset whose items are batches."""

    def __init__(self, reader: ShardReader, plan: Plan, augmentation: Augmentation):
        self.reader, self.plan, self.augmentation = reader, plan, augmentation
        reader.check_cache(shards_at_once(plan))

    def __getitem__(self, sample_ids: Tensor) -> Batch:
        """Read images (n,). A damaged one gives its slot to the next readable of its stream."""
        index, rows, substitutions = self.reader.index, self.plan.rows(sample_ids.numpy()), []
        self.reader.want(rows)
        self.reader.want(self._soon(sample_ids))
        pixels, bad = self.reader.load_batch(rows)
        for place, error in bad:
            sample_id, label = int(sample_ids[place]), int(index.labels[rows[place]])
            substitutions.append(Substitution(sample_id, label, str(error)))
            rows[place], pixels[place] = self._stand_in(sample_id)
        x, augment, mirrored = torch.from_numpy(pixels), None, None
        y = torch.from_numpy(index.labels[rows].astype(np.int64))
        if not self.augmentation.is_mirror_alone:
            x, augment = self.augmentation(to_model_range(x), sample_ids, y)
        elif self.augmentation.flip:
            mirrored = self.augmentation.mirrored(sample_ids)
        keys, found = index.keys(rows), tuple(substitutions)
        return Batch(x, y, sample_ids, keys, found, augment, mirrored)

    def _soon(self, sample_ids: Tensor) -> NDArray[np.int64]:
        """Rows, one a stream, of half a shard later: what comes next from a far store."""
        plan = self.plan
        if len(plan.sizes) == 1 or self.reader.store.is_local:
            return np.empty(0, np.int64)
        half = plan.num_samples // len(plan.sizes) // 2
        first = int(sample_ids[0]) + half * plan.num_streams
        return plan.rows(np.arange(first, first + plan.num_streams))

    def _stand_in(self, sample_id: int) -> tuple[int, np.ndarray]:
        for row in islice(self.plan.successors(sample_id), 10_000):
            try:
                return row, self.reader.load(row)
            except BadSample:
                continue
        raise ValueError(
            f"data.root ({self.reader.root}): no readable image is left in the stream of image "
            f"{sample_id}. Verify the shards, or make them again with {prog_of('prepare')}."
        )


def load_batches(
    dataset: BatchSource,
    config: DataConfig,
    *,
    start: int,
    batch_size: int,
    rank: int,
    world_size: int,
) -> Iterator[Batch]:
    """The batches of one rank from image ``start`` on, for ever, in the plan's order."""

    def steps() -> Iterator[Tensor]:
        sample_id = start
        while True:
            yield slots(sample_id, batch_size, rank, world_size)
            sample_id += batch_size

    if config.num_workers:
        server = torch.multiprocessing.get_context("forkserver")
        # torch is imported once, not per process
        server.set_forkserver_preload(["cbdm_scale.data.own_session", __name__])
        loader: torch.utils.data.DataLoader[Batch] = torch.utils.data.DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=None,
            sampler=steps(),
            num_workers=config.num_workers,
            prefetch_factor=config.prefetch_factor,
            multiprocessing_context=server,
            worker_init_fn=leave_with_parent,
        )
        yield from batches_of_processes(loader, config.timeout_s)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as thread:
        ahead = (thread.submit(dataset.__getitem__, sample_ids) for sample_ids in steps())
        queue = deque(islice(ahead, config.prefetch_factor))
        try:
            while True:
                yield queue.popleft().result()
                queue.append(next(ahead))
        finally:
            for waiting in queue:
                waiting.cancel()
