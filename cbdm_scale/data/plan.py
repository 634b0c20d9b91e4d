"""Which sample comes at which step: pure arithmetic on (index, seed, images planned so far).

Image g of a run (g = 0, 1, 2, ... over all ranks) lies at position i = g - eN of epoch
e = g // N and reads element i // S of stream i % S. Nothing here depends on the number of
workers: rank r of R owns the slots j of a step with j % R == r, and that is all a rank is.
Nothing depends on what was read before: any step is reached by arithmetic.

The streams of an epoch are S equal pieces (the first N % S one longer) of one long row of
shards in keyed order, each shard's samples in keyed order: S sets how many shards are open at
a time. An index of up to ``MIX_ROWS`` rows is one stream of one block, which mixes best.

Shapes: N = samples, S = streams, B = blocks (shards, or one block of everything).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cbdm_scale.diffusion import rng

MIX_ROWS = 2_000_000
SUCCESSORS_AT_ONCE = 64

Rows = NDArray[np.int64]


class Plan(Protocol):
    """What the loader asks of a plan; it pickles small."""

    num_samples: int
    num_streams: int
    sizes: Rows
    """Samples of each block, (B,): what is read together is one block."""

    def rows(self, sample_ids: Rows) -> Rows:
        """Index rows of images: (n,) int64 numbers since the run began -> (n,) int64."""
        ...

    def successors(self, sample_id: int) -> Iterator[int]:
        """Rows that stand in for an image whose sample cannot be read, in their order."""
        ...


def by_epoch(
    sample_ids: Rows, num_samples: int, rows_of: Callable[[int, Rows], ArrayLike]
) -> Rows:
    """Rows (n,) of images (n,), from ``rows_of`` an epoch and positions in it."""
    epochs, positions = np.divmod(np.asarray(sample_ids, np.int64), num_samples)
    rows = np.empty(len(positions), np.int64)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        rows[here] = rows_of(epoch, positions[here])
    return rows


class SamplePlan:
    """The order of all samples of a split, for ever: every one once an epoch.

    Memory: the order of the shards of two epochs, and two permutations a stream.
    """

    def __init__(
        self,
        shard_sizes: ArrayLike,
        seed: int,
        *,
        num_streams: int | None = None,
    ):
        """``shard_sizes`` (B,) samples per shard; ``num_streams`` None chooses by size."""
        self._recipe = (shard_sizes, seed, num_streams)
        sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.num_samples = int(sizes.sum())
        if self.num_samples == 0:
            raise ValueError("the training split has no samples: nothing can be planned.")
        if num_streams is None:
            small = self.num_samples <= MIX_ROWS
            num_streams = 1 if small else min(64, len(sizes))
            sizes = np.array([self.num_samples]) if small else sizes
        self.seed = seed
        self.sizes = sizes  # (B,)
        self.num_streams = num_streams
        self.first_row = np.cumsum(sizes) - sizes  # (B,)
        # While a step takes one stream to its next shard, another has not left its last one.
        self._rows_of_block = lru_cache(maxsize=2 * num_streams + 1)(self._permute_block)
        self._order_of_blocks = lru_cache(maxsize=2)(self._permute_blocks)

    def __reduce__(self) -> tuple[Any, ...]:
        sizes, seed, num_streams = self._recipe
        return _sample_plan, (np.asarray(sizes), seed, num_streams)

    def rows(self, sample_ids: Rows) -> Rows:
        """Index rows of images: (n,) int64 numbers since the run began -> (n,) int64."""

        def of_epoch(epoch: int, positions: Rows) -> Rows:
            elements, streams = np.divmod(positions, self.num_streams)
            return self._rows_of(epoch, streams, elements)

        return by_epoch(sample_ids, self.num_samples, of_epoch)

    def successors(self, sample_id: int) -> Iterator[int]:
        """Rows that stand in for an unreadable sample: the next elements of its stream."""
        epoch, position = divmod(int(sample_id), self.num_samples)
        element, stream = divmod(position, self.num_streams)
        short, longer = divmod(self.num_samples, self.num_streams)
        length = short + (stream < longer)
        for first in range(1, length, SUCCESSORS_AT_ONCE):
            steps = np.arange(first, min(first + SUCCESSORS_AT_ONCE, length))
            yield from self._rows_of(epoch, stream, (element + steps) % length).tolist()

    def _rows_of(self, epoch: int, streams: Rows | int, elements: Rows) -> Rows:
        """Rows of elements (n,) of their streams (n,), or of one stream, in one epoch."""
        short, longer = divmod(self.num_samples, self.num_streams)
        places = streams * short + np.minimum(streams, longer) + elements  # in the long row
        order, ends = self._order_of_blocks(epoch)
        slots = np.searchsorted(ends, places, side="right")
        blocks = order[slots]
        inside = places - (ends[slots] - self.sizes[blocks])
        rows = self.first_row[blocks]
        for block in np.unique(blocks).tolist():
            here = blocks == block
            rows[here] += self._rows_of_block(epoch, block)[inside[here]]
        return rows

    def _permute_blocks(self, epoch: int) -> tuple[Rows, Rows]:
        """Blocks in their order, and where each ends in the long row: 2 x (B,)."""
        order = rng.permutation(self.seed, f"shards/{epoch}", len(self.sizes)).numpy()
        return order, np.cumsum(self.sizes[order])

    def _permute_block(self, epoch: int, block: int) -> NDArray[np.int32]:
        purpose = f"samples/{epoch}/{block}"
        order = rng.permutation(self.seed, purpose, int(self.sizes[block])).numpy()
        return order.astype(np.int32)


def _sample_plan(sizes: Sequence[int], seed: int, num_streams: int | None) -> SamplePlan:
    return SamplePlan(sizes, seed, num_streams=num_streams)


def slots(start: int, batch_size: int, rank: int, world_size: int) -> torch.Tensor:
    """Numbers of the images that a rank owns in the step that starts at image ``start``."""
    return torch.arange(start + rank, start + batch_size, world_size)
