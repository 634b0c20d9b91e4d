"""Calls of one function for many items: in this process, or on many CPUs of a cluster.

What a call leaves behind (a shard, a list of faults) must not depend on where or when it ran.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cbdm_scale.cluster.options import Log, PoolConfig
from cbdm_scale.cluster.pool import WORTH_RAY_S, run_jobs
from cbdm_scale.storage.folder import Storage

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
        elif items:
            log(f"about {left:.0f} s, in this process: little work is done before Ray starts")
    if not workers:
        yield from map(call, items)
        return
    jobs = run_jobs(
        partial(_ready, call),
        items,
        PoolConfig(device="cpu"),
        log,
        at_most=workers,
        sees=sees,
        leave=True,
        advice=f"Fewer --workers (now {workers}) need less memory; --workers 0 is this process "
        "alone.",
    )
    for _, result in jobs:
        yield result


def _ready(call: Callable[[Item], Result], device: Any) -> Callable[[Item], Result]:
    return call


@dataclass(frozen=True)
class Sees:
    """Whether a node sees the folder that is written to, and the files that are read."""

    target: Storage
    name: str
    """A file that is in the target since the work began."""
    reads: Path | None = None
    """An absolute path; None where nothing is read, or from a URL, which all nodes see."""

    def __call__(self) -> bool:
        there = self.reads is None or self.reads.exists()
        return there and self.target.exists(self.name)
