"""How far an evaluation is, and how long the images take that a run has yet to make."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from cbdm_scale.cluster.options import Log
from cbdm_scale.cluster.progress import ProgressBar, clock
from cbdm_scale.config.schema import Config
from cbdm_scale.sampling.grid import GRID_COLUMNS, GRID_ROWS


class Pace:
    """Counts what this rank does, and takes all ranks to be as fast."""

    def __init__(self, num_ranks: int, log: Log | None):
        """``log`` shows lines, or a bar, of work that takes a while; None shows nothing."""
        self.num_ranks, self.log = num_ranks, log
        self._bar: ProgressBar | None = None
        self._images, self._seconds = 0, 0.0

    @contextmanager
    def showing(self, total: int, unit: str, *, measured: bool = True) -> Iterator[None]:
        """While all ranks do ``total`` images; ``measured``: they are generated ones."""
        bar = ProgressBar(total, unit, self.log) if self.log else None
        before, began = self._images, time.monotonic()
        with bar or nullcontext():
            self._bar = bar
            yield
        self._bar = None
        if measured:
            self._seconds += time.monotonic() - began
        else:
            self._images = before

    def count(self, num_images: int) -> None:
        """So many more are done by this rank."""
        self._images += num_images
        if self._bar:
            done = self._bar.done + num_images * self.num_ranks
            self._bar.reach(min(done, self._bar.total))

    def left(self, train_s: float, num_images: int) -> str:
        """What is left of a run: so many seconds of training, so many images to generate."""
        if not num_images:
            return f"{clock(train_s)} left"
        if not self._images:
            return f"{clock(train_s)} left, then {num_images:,} images to make"
        each = self._seconds / self._images / self.num_ranks
        return f"{clock(train_s + num_images * each)} left"


def images_to_make(config: Config, num_classes: int, num_seen: int, *, waits: bool) -> int:
    """Images of grids and evaluations from the step on that ends at ``num_seen``.

    waits: training waits for evaluations at intervals; else only the last one counts.
    """
    train, evals = config.train, config.eval
    since, end = num_seen - train.batch_size, train.total_images
    looks = {n for n in train.eval_at if since < n < end}
    grids = 0
    if every := train.sample_every:
        grids = end // every - since // every + (end % every > 0)
        grids += sum(n % every > 0 for n in looks)
    found = grids * GRID_COLUMNS * min(GRID_ROWS, num_classes)
    if evals.extractor == "none":
        return found
    at = set(looks)
    if every := train.eval_every:
        at |= set(range((since // every + 1) * every, end, every))
    strengths = len(evals.guidance) + waits * len(at) * len(evals.at_intervals)
    return found + strengths * evals.num_images
