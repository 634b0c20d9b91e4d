"""Who talks to storage, tracker and driver as the workers grow: counted, not argued.

Each simulated worker is the product's own `run_rank`, start to end, in a world that claims to
have R ranks: one after the other, so that a thousand fit into this process. What the ranks
would say to each other is left out; every call to storage, tracker and driver is counted.

Storage here is the run's folder. Of the data set a node reads its manifest and index once, into
its cache, and each rank the shards of its own images.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from benchmarks.commands import train_config
from benchmarks.timing import markdown, parse, timed
from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import Config
from cbdm_scale.runs import worker as product
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.tracker import Tracker
from cbdm_scale.training.distributed import World

READS = "read_bytes", "list", "exists", "size"
WRITES = "write_bytes", "write_all", "put_file", "remove", "move"
STEPS, SAVE_STEPS = 4, 2


class Claimed(World):
    """Rank ``rank`` of a world that claims to have ``size``; the others say what it says."""

    def __init__(self, rank: int, size: int):
        super().__init__()
        self.rank, self.size = rank, size

    def gather(self, value: Any) -> list[Any]:
        return [value] * self.size


class CountingTracker(Tracker):
    """In the place of MLflow's."""

    def __init__(self, counts: Counter[str], *about: object):
        self.counts = counts

    def count(self, *given: Any, **named: Any) -> None:
        self.counts["tracker"] += 1

    scalars = image = model = count


@contextmanager
def counted(counts: Counter[str], folder: str) -> Iterator[None]:
    """Count calls and bytes of storage below ``folder``, and who makes a tracker."""

    def counting(name: str, kind: str) -> Callable[..., Any]:
        real = getattr(Storage, name)

        def call(self: Storage, *args: Any) -> Any:
            found = real(self, *args)
            if self.url.startswith(folder):
                counts[kind] += 1
                counts["bytes read"] += len(found) if name == "read_bytes" else 0
            return found

        return call

    kinds = dict.fromkeys(READS, "reads") | dict.fromkeys(WRITES, "writes")
    tracker = partial(CountingTracker, counts)
    with ExitStack() as stack:
        for name, kind in kinds.items():
            stack.enter_context(patch.object(Storage, name, counting(name, kind)))
        stack.enter_context(patch.object(product, "MlflowTracker", tracker))
        yield


def tiny(root: str, storage: str, workers: int, steps: int) -> Config:
    """A run of a few steps, one image a worker in each."""
    options = f"""
        --dataset digits_lt --preset ddpm --data.prefetch-factor 1 --model.channels 8
        --model.num-blocks 1 --model.groups 4
        --train.batch-size {workers} --train.total-images {steps * workers}
        --train.log-every {workers} --train.save-every {SAVE_STEPS * workers}
        --train.sample-every 0 --sample.num-steps 1 --eval.extractor none
        --cluster.workers {workers}
    """
    config = train_config(options, shards=root, storage=storage, name=f"of-{workers}")
    return with_options(config, {"model.multipliers": [1], "model.attention": []})


def simulate(
    root: str, storage: str, workers: int, ranks: Sequence[int], steps: int
) -> dict[int, Counter[str]]:
    """What each of these ranks of so many called, in a run of so many steps.

    Rank 0, which alone leaves something behind, comes last: all begin at the same place.
    """
    config = tiny(root, storage, workers, steps)
    found = {}
    for rank in sorted(ranks, reverse=True):
        counts: Counter[str] = Counter()
        with counted(counts, storage):
            outcome = product.run_rank(
                Claimed(rank, workers),
                lambda path, metrics, c=counts: c.update(["Ray reports"]),
                lambda text, c=counts: c.update(["lines"]),
                config=config,
                tracking_uri="counted",
                run_id="counted",
            )
        assert "error" not in outcome, outcome
        found[rank] = counts
    return found


def report_seconds(workers: int, times: int = 20) -> float:
    """CPU seconds of one report of so many workers in the actor where Ray Train joins them.

    The actor's own code, without the messages that bring the calls to it.
    """
    from ray.train.v2._internal.execution.checkpoint.sync_actor import SynchronizationActor

    async def reports() -> None:
        actor = SynchronizationActor.__ray_metadata__.modified_class()
        for _ in range(times):
            calls = [
                actor.broadcast_from_rank_zero(rank, workers, {"images": 1.0}, "report")
                for rank in range(workers)
            ]
            await asyncio.gather(*calls)

    return timed(lambda: asyncio.run(reports())).cpu / times


KINDS = "reads", "bytes read", "writes", "tracker", "lines", "Ray reports"


def table(workers: Sequence[int]) -> str:
    """Calls of a whole run by rank 0 and by all others together; driver's time of a report."""
    from data_prep.prepare import prepare_digits

    rows, seconds = [], []
    with tempfile.TemporaryDirectory(prefix="reporters-") as folder:
        root, storage = f"{folder}/shards", f"{folder}/runs"
        prepare_digits(root)
        for size in workers:
            for run, steps in (("fresh", STEPS), ("resumed", STEPS + SAVE_STEPS)):
                found = simulate(root, storage, size, range(size), steps)
                others = sum((found[rank] for rank in range(1, size)), Counter())
                for who, counts in (("rank 0", found[0]), (f"{size - 1} others", others)):
                    # In "resumed" the others, who hear nothing, began anew and report more.
                    skipped = "Ray reports" if run == "resumed" else ""
                    cells = [f"{counts[k]:,}" if k != skipped else "" for k in KINDS]
                    rows.append([f"{size:,}", run, who, *cells])
            seconds.append([f"{size:,}", f"{report_seconds(size) * 1e3:.2f}"])
    kinds = "storage reads", "bytes read", "storage writes", "tracker calls"
    head = ["workers", "run", "who", *kinds, "lines to the driver", "Ray reports"]
    driver = markdown(["workers", "driver CPU ms a report"], seconds)
    return f"{markdown(head, rows)}\n\n{driver}"


def main() -> None:
    print(table(parse(__doc__, workers=[10, 100, 1000]).workers))
