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

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from cbdm_scale import draws

MIX_ROWS = 2_000_000


class SamplePlan:
    """The order of all samples of a split, for ever. Memory: one permutation a stream."""

    def __init__(
        self,
        shard_sizes: Sequence[int],
        seed: int,
        *,
        num_streams: int | None = None,
    ):
        """``shard_sizes`` (B,) samples per shard; ``num_streams`` None chooses by size."""
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
        self.first_row = np.concatenate([[0], np.cumsum(sizes)[:-1]])  # (B,)
        self._rows_of_block = lru_cache(maxsize=num_streams + 1)(self._permute_block)
        self._order_of_blocks = lru_cache(maxsize=2)(self._permute_blocks)

    def epoch(self, image: int) -> int:
        return image // self.num_samples

    def rows(self, images: np.ndarray) -> np.ndarray:
        """Index rows of images: (n,) int64 numbers since the run began -> (n,) int64."""
        return np.array([self._row(*self._place(int(g))) for g in images], dtype=np.int64)

    def successors(self, image: int) -> Iterator[int]:
        """Rows that stand in for an unreadable sample: the next elements of its stream."""
        epoch, stream, element = self._place(image)
        length = self._stream_length(stream)
        for step in range(1, length):
            yield self._row(epoch, stream, (element + step) % length)

    def _place(self, image: int) -> tuple[int, int, int]:
        """(epoch, stream, element in the stream) of an image."""
        epoch, position = divmod(image, self.num_samples)
        return epoch, position % self.num_streams, position // self.num_streams

    def _stream_length(self, stream: int) -> int:
        short, longer = divmod(self.num_samples, self.num_streams)
        return short + (stream < longer)

    def _row(self, epoch: int, stream: int, element: int) -> int:
        short, longer = divmod(self.num_samples, self.num_streams)
        position = stream * short + min(stream, longer) + element
        order, ends = self._order_of_blocks(epoch)
        slot = int(np.searchsorted(ends, position, side="right"))
        block = int(order[slot])
        inside = position - int(ends[slot] - self.sizes[block])
        return int(self.first_row[block] + self._rows_of_block(epoch, block)[inside])

    def _permute_blocks(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = draws.permutation(self.seed, f"shards/{epoch}", len(self.sizes)).numpy()
        return order, np.cumsum(self.sizes[order])

    def _permute_block(self, epoch: int, block: int) -> np.ndarray:
        purpose = f"samples/{epoch}/{block}"
        return draws.permutation(self.seed, purpose, int(self.sizes[block])).numpy()


def slots(start: int, batch_size: int, rank: int, world_size: int) -> torch.Tensor:
    """Numbers of the images that a rank owns in the step that starts at image ``start``."""
    return torch.arange(start + rank, start + batch_size, world_size)
