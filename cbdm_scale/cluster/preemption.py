"""The notice that a node will be taken away (a drain in Ray, as of spot machines), on a worker.

Ray Train tells every worker within seconds, lets all go on until the deadline, and then starts
them again on the nodes that are left. So the run saves a checkpoint at once, because a node may
go before its deadline, and one more shortly before it.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from cbdm_scale.cluster.options import Log
from cbdm_scale.cluster.ray_internals import preemption_info

MIN_LEAD_S = 5.0
"""Seconds before the deadline at which the second checkpoint begins at the latest."""
LEAD_IN_WRITES = 3.0
"""How much earlier it begins, in units of the seconds that the last checkpoint took."""


@dataclass(frozen=True)
class Drain:
    """Nodes that will go."""

    nodes: tuple[str, ...]
    ranks: tuple[int, ...]
    """The workers on them."""
    deadline: float | None
    """Seconds since 1970; None if nobody says."""


def drain() -> Drain | None:
    """What Ray Train has told this worker; None while no node is to go."""
    if "ray.train" not in sys.modules:  # under torchrun, say
        return None
    info = preemption_info()
    if info is None:
        return None
    nodes = tuple(sorted(info.preempted_node_to_ranks))
    ranks = sorted(rank for node in nodes for rank in info.preempted_node_to_ranks[node])
    deadline = None if info.deadline_ms is None else info.deadline_ms / 1000
    return Drain(nodes, tuple(ranks), deadline)


class PreemptionMonitor:
    """When a checkpoint is due because a node is about to go."""

    def __init__(self, log: Log, get_drain: Callable[[], Drain | None] = drain):
        self.log, self.get_drain = log, get_drain
        self._answered: Drain | None = None
        self._is_last = False

    def is_due(self, write_s: float) -> bool:
        """True once when a node is announced, and once more before it goes.

        write_s: seconds that the last checkpoint took.
        """
        found = self.get_drain()
        if found is None:
            return False
        left = None if found.deadline is None else found.deadline - time.time()
        if self._answered is None or found.nodes != self._answered.nodes:
            when = "soon" if left is None else f"in {max(left, 0):.0f} s"
            workers = " ".join(map(str, found.ranks))
            self.log(
                f"preemption: the node of worker {workers} goes {when}; a checkpoint is saved "
                "now, and the run goes on elsewhere"
            )
            self._answered, self._is_last = found, False
            return True
        if (
            left is not None
            and not self._is_last
            and left < max(MIN_LEAD_S, LEAD_IN_WRITES * write_s)
        ):
            self._is_last = True
            return True
        return False
