"""Losses and speed between two reports."""

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from cbdm_scale.torch_internals import foreach_add_
from cbdm_scale.training.distributed import World


def sums_of(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Terms (n,) of n images -> their sums () in float64, by name."""
    return {name: term.double().sum() for name, term in terms.items()}


class Meter:
    """Means of the loss terms over images and ranks; images a second; waiting; pauses.

    Sums stay on the device until they are read, so that no step waits for them.
    """

    def __init__(self, world: World):
        self.world = world
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.num_images = 0  # of this rank
        self.waited = 0.0
        self.paused_for = 0.0
        self.start = time.perf_counter()

    def add(self, sums: Mapping[str, Tensor], num_images: int) -> None:
        """Count the sums of the terms, () float64 by name, of so many images of this rank."""
        if not self.sums:
            self.sums = {name: torch.zeros_like(total) for name, total in sums.items()}
        foreach_add_(list(self.sums.values()), [sums[name] for name in self.sums])
        self.num_images += num_images

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent here is waiting for data."""
        begin = time.perf_counter()
        yield
        self.waited += time.perf_counter() - begin

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent here is not training."""
        begin = time.perf_counter()
        yield
        self.paused_for += time.perf_counter() - begin

    def read(self) -> dict[str, float]:
        """The numbers since the last reading, the same on every rank. Waits for the device."""
        names = sorted(self.sums)
        mine = torch.stack([self.sums[name] for name in names]).cpu()  # syncs
        seconds = max(time.perf_counter() - self.start - self.paused_for, 1e-9)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory = peak / (2**30 if sys.platform == "darwin" else 2**20)  # GiB
        rest = [self.num_images, self.waited, seconds, memory, self.paused_for]
        total = self.world.sum(torch.cat([mine, torch.tensor(rest).double()]))
        num_images, waited, all_seconds, all_memory, paused = total[len(names) :].tolist()
        self._reset()
        return {
            **{
                f"loss/{n}": v / num_images for n, v in zip(names, total.tolist(), strict=False)
            },
            "images_per_second": num_images * self.world.size / all_seconds,
            "data_wait": waited / all_seconds,
            "memory_gib": all_memory / self.world.size,
            "paused_s": paused / self.world.size,
        }
