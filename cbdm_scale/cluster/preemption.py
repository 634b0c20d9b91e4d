"""The notice that a node will be taken away (a drain in Ray, as of spot machines), on a worker.

Ray Train tells every worker within seconds, lets all go on until the deadline, and then starts
them again on the nodes that are left. So the run saves a checkpoint at once, because a node may
go before its deadline, and one more shortly before it.
"""

import time
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

from cbdm_scale.cluster.options import Log
from cbdm_scale.cluster.ray_internals import preemption_info

if TYPE_CHECKING:
    from ray.train import PreemptionInfo

MIN_LEAD_S = 5.0
"""Seconds before the deadline at which the second checkpoint begins at the latest."""
LEAD_IN_WRITES = 3.0
"""How much earlier it begins, in units of the seconds that the last checkpoint took."""


class PreemptionMonitor:
    """When a checkpoint is due because a node is about to go."""

    def __init__(
        self, log: Log, get_info: "Callable[[], PreemptionInfo | None]" = preemption_info
    ):
        self.log, self.get_info = log, get_info
        self._answered: set[str] | None = None
        """Nodes for which a checkpoint was saved."""
        self._is_last = False

    def is_due(self, write_s: float) -> bool:
        """True once when a node is announced, and once more before it goes.

        write_s: seconds that the last checkpoint took.
        """
        info = self.get_info()
        if info is None:
            return False
        nodes, deadline_ms = info.preempted_node_to_ranks, info.deadline_ms
        left = None if deadline_ms is None else deadline_ms / 1000 - time.time()
        if nodes.keys() != self._answered:
            when = "soon" if left is None else f"in {max(left, 0):.0f} s"
            workers = " ".join(map(str, sorted(chain(*nodes.values()))))
            self.log(
                f"preemption: the node of worker {workers} goes {when}; a checkpoint is saved "
                "now, and the run goes on elsewhere"
            )
            self._answered, self._is_last = set(nodes), False
            return True
        if (
            left is not None
            and not self._is_last
            and left < max(MIN_LEAD_S, LEAD_IN_WRITES * write_s)
        ):
            self._is_last = True
            return True
        return False
