"""A process on every node that may take workers, which answers questions there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cbdm_scale.cluster.causes import CURES, cause_of
from cbdm_scale.cluster.connect import alive_nodes, max_resources
from cbdm_scale.cluster.options import ClusterConfig, wants_gpus
from cbdm_scale.storage.wording import clip, shorten

Question = Callable[[], Any]
"""Sent to the node that is to answer it."""


@dataclass(frozen=True)
class Problem:
    """What came instead of an answer."""

    reason: str
    cause: str = ""
    """Its name in ``causes``, "" where it is not known."""

    def told(self, **cures: str) -> str:
        """The reason and what mends it, as sentences; ``cures``: of causes, here alone."""
        cure = (CURES | cures).get(self.cause, "")
        return f"{self.reason.rstrip('. ')}.{f' {cure}.' if cure else ''}"


def problem_of(error: Exception) -> Problem:
    """What an error is about, told by all of its words, in short ones."""
    words = str(error) or type(error).__name__
    return Problem(clip(words), cause_of(words))


class _ProbeActor:
    """What runs in the process."""

    def answer(self, question: Question) -> Any:
        try:
            return question()
        except Exception as error:  # each kind of store and tracker raises its own
            return problem_of(error)


START_S = 60.0
"""Seconds that a node gets to start a process at least, however short cluster.timeout_s is."""
GPU_SLICE = 0.01
"""Share of a GPU that a process has which asks about GPUs: without one Ray shows it none."""


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
        self.num_gpus = [int(node["Resources"].get("GPU", 0)) for node in nodes]
        """Of each node, as Ray counts them."""
        self._actor = ray.remote(num_cpus=0)(_ProbeActor)
        self._places = [NodeAffinitySchedulingStrategy(n["NodeID"], soft=False) for n in nodes]
        self._started: list[Any] = []
        self._probes = [self._start(place) for place in self._places]

    def _start(self, place: Any, gpus: float = 0) -> Any:
        probe = self._actor.options(scheduling_strategy=place, num_gpus=gpus).remote()
        self._started.append(probe)
        return probe

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        """One question a node -> its answer, or the ``Problem`` that it has with it."""
        return self._ask(self._probes, questions, self.timeout_s)

    def ask_gpus(self, question: Question) -> list[Any]:
        """The answer of a process with a slice of a GPU on every node that has GPUs.

        None for a node without, and where all GPUs are taken: who trains there waits for one.
        """
        import ray

        answers: list[Any] = [None] * len(self.names)
        if not ray.available_resources().get("GPU", 0):
            return answers
        rows = [i for i, number in enumerate(self.num_gpus) if number]
        probes = [self._start(self._places[i], GPU_SLICE) for i in rows]
        found = self._ask(probes, [question] * len(probes), START_S)
        for i, answer in zip(rows, found, strict=True):
            answers[i] = None if answer == self._silent(START_S) else answer
        return answers

    def _ask(
        self, probes: Sequence[Any], questions: Sequence[Question], seconds: float
    ) -> list[Any]:
        import ray

        pairs = zip(probes, questions, strict=True)
        refs = [probe.answer.remote(question) for probe, question in pairs]
        if not refs:
            return []
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=seconds)
        return [self._get(ref) if ref in ready else self._silent(seconds) for ref in refs]

    def _silent(self, seconds: float) -> Problem:
        return Problem(f"no answer within {seconds:g} s", "silent")

    def _get(self, ref: Any) -> Any:
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(ref)
        except RayError as error:  # the node has no such code, is gone, or lets nobody in
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            cause = cause_of(str(error))
            cannot = "cannot run this code: " if cause == "code" else ""
            return Problem(f"{cannot}{clip(lines[-1] if lines else repr(error))}", cause)

    def close(self) -> None:
        """End the processes."""
        import ray

        for probe in self._started:
            ray.kill(probe)


class ThisProcess:
    """The same questions to this process alone, where nothing else is to take part."""

    def __init__(self) -> None:
        import torch

        self.names = ["this process"]
        self.num_gpus = [torch.cuda.device_count()]

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        """Its answer, or the ``Problem`` that it has."""
        return [_ProbeActor().answer(question) for question in questions]

    def ask_gpus(self, question: Question) -> list[Any]:
        """The same, of a process that has GPUs."""
        return self.ask([question]) if self.num_gpus[0] else [None]

    def close(self) -> None:
        """Nothing to end."""


def look_at_gpus(nodes: Nodes | ThisProcess) -> tuple[list[str], list[str]]:
    """Problems, and the nodes' names with their GPUs."""
    from cbdm_scale.devices import gpu_names

    problems, named = [], []
    answers = nodes.ask_gpus(gpu_names)
    for name, number, found in zip(nodes.names, nodes.num_gpus, answers, strict=True):
        if not number:
            named.append(f"{name}, no GPU and so no worker")
        elif found is None:
            named.append(f"{name}, {number} GPUs, all taken now and not looked at")
        elif isinstance(found, Problem):
            problems.append(
                f"node {name} has {number} GPUs for Ray, and none that works: {found.told()} "
                "--cluster.device cpu trains without."
            )
        else:
            named.append(f"{name}, {number} x {found[0]}")
    return problems, named


def check_gpus(config: ClusterConfig) -> None:
    """ValueError names the nodes whose GPUs do not work, if workers are to get some."""
    if not config.workers or not wants_gpus(config, max_resources()):
        return
    nodes = Nodes(config.timeout_s)
    try:
        problems, _ = look_at_gpus(nodes)
    finally:
        nodes.close()
    refuse(problems)


def refuse(problems: Sequence[str]) -> None:
    """ValueError with the first of them, if there are any."""
    if problems:
        told = shorten(problems, 3, each=300, between="\n")
        raise ValueError(f"the cluster is not ready.\n{told}")
