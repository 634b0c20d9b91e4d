"""What a fault cost, read off the lines of its run, and the table of docs/reliability.md."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.faults.observed import Event
from benchmarks.timing import markdown

HEAD = (
    *("fault", "injected", "recovered", "images computed twice", "seconds without a step"),
    *("weights", "numbers"),
)


@dataclass(frozen=True)
class Cost:
    restarts: int
    """Groups of workers that began after the fault."""
    twice: int
    """Images that were shown to the network again."""
    still_s: float
    """Longest time between two steps, from the last one before the fault on."""


def cost(events: Sequence[Event], since: float, until: float) -> Cost:
    """Of a fault at ``since`` whose recovery was seen at ``until``.

    A group that goes on from a checkpoint, or from nothing, shows again what the groups before
    it reported beyond that; what they did not live to report is not counted.
    """
    before = [e for e in events if e.seconds < since]
    steps_before = [e for e in before if e.kind == "step"]
    reached = steps_before[-1].images if steps_before else 0
    last = steps_before[-1].seconds if steps_before else since
    restarts = twice = 0
    still, began_at = 0.0, None
    for event in (e for e in events if since <= e.seconds <= until):
        if event.kind == "workers":
            restarts, began_at = restarts + 1, 0
        elif event.kind == "resumed":
            began_at = event.images
        else:
            if began_at is not None:
                twice += max(0, reached - began_at)
                reached, began_at = began_at, None
            still, last = max(still, event.seconds - last), event.seconds
            reached = max(reached, event.images)
    return Cost(restarts, twice, round(still, 2))


def spread(values: list[float]) -> str:
    """Median and, in brackets, the largest."""
    return f"{statistics.median(values):.0f} ({max(values):.0f})" if values else ""


def row(says: str, faults: list[dict[str, Any]]) -> list[str]:
    """Of the faults that were proven to have happened."""
    real = [fault for fault in faults if "proof" in fault]
    over = [fault for fault in real if fault["recovered"]]
    costs = [spread([fault[cost] for fault in over]) for cost in ("twice", "still_s")]
    return [says, str(len(real)), str(len(over)), *costs]


def table(found: Mapping[str, Any], says: Mapping[str, str]) -> str:
    """A row for each kind, and under each soak a row for each of its kinds."""
    rows = []
    for name, one in found.items():
        weights = "identical" if one["identical"] else f"losses to {one['largest']:.0e}"
        whole = [weights, "each once" if one["numbers"] else "NOT each once"]
        rows.append([*row(says.get(name, name), one["faults"]), *whole])
        kinds = {fault["kind"] for fault in one["faults"]} & set(says)
        for kind in sorted(kinds) if name not in says else ():
            some = [fault for fault in one["faults"] if fault["kind"] == kind]
            rows.append([*row(f"- {says[kind]}", some), "", ""])
    return markdown(HEAD, rows)
