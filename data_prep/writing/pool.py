"""Calls of one function for many items: in this process, or as Ray tasks on many CPUs.

What a call leaves behind (a shard, a list of faults) must not depend on where or when it ran.
"""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from data_prep.writing.target import Target

WORTH_RAY_S = 60.0
"""Seconds of work from which on Ray's start (some ten seconds) is worth it."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Say = Callable[[str], None]


def run(
    call: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None,
    say: Say,
    sees: "Sees | None" = None,
) -> Iterator[Result]:
    """The results, in whatever order they come; an error of a call stops the others.

    ``workers`` 0 is this process. None makes the first two items here (the first also
    pays for imports) and takes Ray, with as many workers as CPUs, if the rest would take longer
    than ``WORTH_RAY_S`` by the second. Other nodes get
    work only if all of them see what ``sees`` asks for.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"--workers ({workers}) must be 0 or more. Try --workers 0.")
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
            say(f"about {left:.0f} s on one CPU: starting Ray (--workers 0 does without)")
    if workers and items:
        yield from _run_on_ray(call, items, workers, say, sees)
    else:
        yield from map(call, items)


def _run_on_ray(
    call: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    say: Say,
    sees: "Sees | None",
) -> Iterator[Result]:
    from cbdm_scale.cluster import ClusterConfig, connect
    from cbdm_scale.cluster.connect import set_environment

    set_environment()  # before ray is imported
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of calls beside one that failed
    import ray

    is_ours = not ray.is_initialized()
    connect(ClusterConfig(workers=1))
    waiting: list[Any] = []
    try:
        task = _task(sees, say)
        cpus = int(ray.cluster_resources().get("CPU", 1))
        if workers > cpus:
            say(f"note: --workers {workers}, but the cluster has {cpus} CPUs: using those")
        # In a list, or the source would be unpacked anew for every task.
        shared = [ray.put(call), os.getcwd()]
        upcoming = iter(items)
        waiting += [task.remote(shared, i) for i in islice(upcoming, min(workers, cpus))]
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            waiting += [task.remote(shared, item) for item in islice(upcoming, 1)]
            try:
                result: Result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            yield result
    finally:
        for reference in waiting:
            ray.cancel(reference)
        if is_ours:
            ray.shutdown()


@dataclass(frozen=True)
class Sees:
    """Whether a node sees the folder that is written to, and the files that are read."""

    target: Target
    name: str
    """A file that is in the target since the work began."""
    reads: str | None = None
    """A local path; URLs are seen from everywhere."""

    def __call__(self, folder: str) -> bool:
        try:
            os.chdir(folder)
        except OSError:
            return False
        is_local = self.reads is not None and "://" not in self.reads
        there = not is_local or os.path.exists(os.path.expanduser(str(self.reads)))
        return there and self.target.size(self.name) is not None


def _task(sees: Sees | None, say: Say) -> Any:
    """The remote function, kept on this node if another one does not see the files."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    here = ray.get_runtime_context().get_node_id()
    others = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != here]
    blind = 0
    if sees is not None and others:
        probe = ray.remote(num_cpus=0, max_retries=0)(_ask)
        asked = [
            probe.options(scheduling_strategy=On(n, soft=False)).remote(sees, os.getcwd())
            for n in others
        ]
        blind = sum(not answer for answer in ray.get(asked))
    task = ray.remote(num_cpus=1, max_retries=3)(_call_shared)
    if blind:
        say(f"note: {blind} other nodes do not see the files, so all work stays on this one")
        task = task.options(scheduling_strategy=On(here, soft=False))
    return task


def _ask(sees: Sees, folder: str) -> bool:
    return sees(folder)


def _call_shared(shared: list[Any], item: Any) -> Any:
    """Paths may be relative to the folder of the command, which is not the workers'."""
    reference, folder = shared
    os.chdir(folder)
    return _fetch(reference)(item)


@functools.lru_cache(maxsize=1)
def _fetch(reference: Any) -> Any:
    import ray

    return ray.get(reference)
