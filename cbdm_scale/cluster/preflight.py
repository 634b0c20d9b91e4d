"""A process on every node that may take workers, which answers questions there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cbdm_scale.cluster.connect import alive_nodes

Question = Callable[[], Any]
"""Sent to the node that is to answer it."""


@dataclass(frozen=True)
class Problem:
    """What came instead of an answer."""

    reason: str


class _ProbeActor:
    """What runs in the process."""

    def answer(self, question: Question) -> Any:
        try:
            return question()
        except Exception as error:  # each kind of store and tracker raises its own
            text = str(error) or type(error).__name__
            return Problem(text)


START_S = 60.0
"""Seconds that a node gets to start a process at least, however short cluster.timeout_s is."""


class Nodes:
    """The nodes of the cluster that have CPUs; ``close`` ends what was started on them."""

    def __init__(self, timeout_s: float) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.timeout_s = max(timeout_s, START_S)
        nodes = [node for node in alive_nodes() if node["Resources"].get("CPU", 0) > 0]
        self.names = [
            f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})" for node in nodes
        ]
        actor = ray.remote(num_cpus=0)(_ProbeActor)
        self._probes = [
            actor.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote()
            for node in nodes
        ]

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        """One question a node -> its answer, or the ``Problem`` that it has with it."""
        import ray

        refs = [
            probe.answer.remote(question)
            for probe, question in zip(self._probes, questions, strict=True)
        ]
        if not refs:
            return []
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=self.timeout_s)
        return [self._get(ref) if ref in ready else self._silent() for ref in refs]

    def _silent(self) -> Problem:
        return Problem(f"no answer within {self.timeout_s:g} s")

    def _get(self, ref: Any) -> Any:
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(ref)
        except RayError as error:  # the node has no such code, or is gone
            lines = [line for line in str(error).strip().splitlines() if line.strip()]
            return Problem(f"cannot run this code: {lines[-1].strip() if lines else error}")

    def close(self) -> None:
        """End the processes."""
        import ray

        for probe in self._probes:
            ray.kill(probe)
