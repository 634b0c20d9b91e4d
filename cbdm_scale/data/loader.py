"""Batches of the sample plan, read and decoded off the training thread.

Shapes: n = images of a rank in a step, C, H, W = image.
"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cbdm_scale import draws
from cbdm_scale.data.cache import GB, CacheFolder
from cbdm_scale.data.index import cache_folder
from cbdm_scale.data.plan import SamplePlan, slots
from cbdm_scale.data.shards import BadSample, ShardReader


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    root: str = "~/cbdm_scale/shards"
    """Folder or URL that holds the data sets made by `python -m data_prep`."""

    flip: bool = True
    """Flip images horizontally, each with probability 1/2."""

    processes: int = 0
    """Processes that read and decode, per worker; 0 is a thread of the worker."""

    prefetch: int = 4
    """Batches read ahead, per process (or by the thread)."""

    cache: str = ""
    """Folder of every node that keeps shards of a remote root and decoded images; empty is
    CBDM_SCALE_CACHE, or a folder of this user among the temporary files."""

    cache_gb: float = 16
    """Gigabytes (10^9 bytes) that this folder may take on each node; 0 keeps nothing."""

    timeout_s: float = 60
    """Seconds after which a process that delivers no batch is given up."""

    max_bad: float = 0.01
    """Share of the planned images that may be replaced because they are damaged."""

    def __post_init__(self) -> None:
        if self.processes < 0:
            raise ValueError(f"data.processes must be 0 or more, got {self.processes}. Try 0.")
        if self.prefetch < 1:
            raise ValueError(f"data.prefetch must be at least 1, got {self.prefetch}. Try 4.")
        if not self.cache_gb >= 0:
            raise ValueError(f"data.cache_gb must be 0 or more, got {self.cache_gb}. Try 16.")
        if not self.timeout_s > 0:
            raise ValueError(f"data.timeout_s must be above 0, got {self.timeout_s}. Try 60.")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"data.max_bad must lie in [0, 1], got {self.max_bad}. Try 0.01.")

    def open_cache(self) -> CacheFolder | None:
        """The node's cache of shards and decoded images; None where it keeps nothing."""
        if not self.cache_gb:
            return None
        path = Path(self.cache).expanduser() if self.cache else cache_folder() / "shards"
        cache = CacheFolder(path, int(self.cache_gb * GB))
        cache.make()
        return cache


@dataclass(frozen=True)
class Substitution:
    """One planned image that could not be read, and why."""

    image: int
    label: int
    reason: str


@dataclass(frozen=True)
class Batch:
    x0: Tensor  # (n, C, H, W) float32 in [-1, 1]
    y: Tensor  # (n,) int64
    images: Tensor  # (n,) int64, numbers since the run began
    keys: tuple[str, ...]
    substitutions: tuple[Substitution, ...]


def shards_at_once(plan: SamplePlan) -> int:
    """Shards that a step may read, and as many that the next ones go on to."""
    return 2 * plan.num_streams if len(plan.sizes) > 1 else sys.maxsize


class PlannedImages:
    """The images of a plan by their numbers: a map-style dataset whose items are batches."""

    def __init__(self, reader: ShardReader, plan: SamplePlan, *, flip: bool, seed: int):
        self.reader, self.plan, self.flip, self.seed = reader, plan, flip, seed
        reader.check_cache(shards_at_once(plan))

    def __getstate__(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "reader": self.reader,
            "plan": (plan.sizes.tolist(), plan.seed, plan.num_streams),
            "flip": self.flip,
            "seed": self.seed,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        sizes, seed, num_streams = state.pop("plan")
        self.__dict__.update(state)
        self.plan = SamplePlan(sizes, seed, num_streams=num_streams)

    def __getitem__(self, images: Tensor) -> Batch:
        """Read images (n,). A damaged one gives its slot to the next readable of its stream."""
        index, rows, substitutions = self.reader.index, self.plan.rows(images.numpy()), []
        pixels, bad = self.reader.load_batch(rows)
        for place, error in bad:
            image, label = int(images[place]), int(index.labels[rows[place]])
            substitutions.append(Substitution(image, label, str(error)))
            rows[place], pixels[place] = self._stand_in(image)
        if self.flip:
            flipped = draws.uniform(self.seed, "flip", images).squeeze(1) < 0.5
            mirror = flipped.numpy()
            pixels[mirror] = pixels[mirror, ..., ::-1]
        x0 = torch.from_numpy(pixels).float().div_(127.5).sub_(1)
        y = torch.from_numpy(index.labels[rows].astype(np.int64))
        return Batch(x0, y, images, index.keys(rows), tuple(substitutions))

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
