"""Calls of one function for many items: in this process, or on many CPUs of a cluster.

What a call leaves behind (a shard, a list of faults) must not depend on where or when it ran.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from cbdm_scale.cluster.options import Log, PoolConfig
from cbdm_scale.cluster.pool import WORTH_RAY_S, run_jobs
from data_prep.writing.target import Target

Item = TypeVar("Item")
Result = TypeVar("Result")


def run(
    call: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None,
    log: Log,
    sees: "Sees | None" = None,
) -> Iterator[Result]:
    """The results, in whatever order they come; an error of a call stops the others.

    ``workers`` 0 is this process. None makes the first two items here (the first also
    pays for imports) and takes Ray, with as many workers as CPUs, if the rest would take longer
    than ``WORTH_RAY_S`` by the second. Other nodes get
    work only if all of them see what ``sees`` asks for.
    """
    if workers is None:
        began = time.monotonic()
        for item in items[:2]:
            began = time.monotonic()
            yield call(item)
        items = items[2:]
        left = (time.monotonic() - began) * len(items)
        workers = os.cpu_count() if left > WORTH_RAY_S else 0
        if workers == 1:
            workers = 0
        if workers:
            log(f"about {left:.0f} s on one CPU: starting Ray (--workers 0 does without)")
    if not workers:
        yield from map(call, items)
        return
    folder = os.getcwd()
    jobs = run_jobs(
        _InFolder(call, folder),
        items,
        PoolConfig(device="cpu"),
        log,
        at_most=workers,
        sees=partial(sees, folder) if sees else None,
        leave=True,
        advice=f"Fewer --workers (now {workers}) need less memory; --workers 0 is this process "
        "alone.",
    )
    for _, result in jobs:
        yield result


@dataclass(frozen=True)
class _InFolder(Generic[Item, Result]):
    """Sets a worker up: paths may be relative to the folder of the command."""

    call: Callable[[Item], Result]
    folder: str

    def __call__(self, device: Any) -> Callable[[Item], Result]:
        os.chdir(self.folder)
        return self.call


@dataclass(frozen=True)
class Sees:
    """Whether a node sees the folder that is written to, and the files that are read."""

    target: Target
    name: str
    """A file that is in the target since the work began."""
    reads: str | None = None
    """A local path; URLs are seen from everywhere."""

    def __call__(self, folder: str) -> bool:
        """Asked in the folder of the command."""
        try:
            os.chdir(folder)
        except OSError:
            return False
        is_local = self.reads is not None and "://" not in self.reads
        there = not is_local or os.path.exists(os.path.expanduser(str(self.reads)))
        return there and self.target.size(self.name) is not None
