"""What a fault cost, read off the lines of the run that suffered it."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.faults.observed import Event


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
