"""Independent jobs on all workers of a cluster; a job whose worker died is done again.

Every worker is set up once (a network is loaded) and then takes one job after the other. What
comes of a job depends on the job alone, so neither the number of workers nor their order shows.
Images are made like that, their features, and shards.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cbdm_scale.cluster.connect import (
    alive_nodes,
    find_cluster,
    in_cluster,
    join,
    log_if_busy,
    max_resources,
)
from cbdm_scale.cluster.local import local_worker
from cbdm_scale.cluster.node_probes import START_S, Nodes
from cbdm_scale.cluster.options import Log, PoolConfig, to_stdout, wants_gpus, worker_env
from cbdm_scale.storage.wording import clip

if TYPE_CHECKING:
    import torch

WORTH_RAY_S = 60.0
"""Seconds of work in this process from which on starting Ray and its workers is worth it."""

Job = TypeVar("Job")
Result = TypeVar("Result")
Setup = Callable[["torch.device"], Callable[[Job], Result]]
"""Called once on every worker with its device; what it returns does the jobs there."""


def run_jobs(
    setup: Setup[Job, Result],
    jobs: Sequence[Job],
    config: PoolConfig,
    log: Log = to_stdout,
    *,
    at_most: int | None = None,
    sees: Callable[[], bool] | None = None,
    leave: bool = False,
    advice: str = "",
) -> Iterator[tuple[Job, Result]]:
    """(job, result) of every job, as they get done, in any order.

    What ``setup`` or a job raises ends it all and is raised here. Where nobody said how many
    workers, and there is no cluster to join, this process begins, and Ray is started only for
    work that is worth it.

    at_most: workers, where the cluster has room for so many; fewer are no error.
    sees: asked on every node; unless all say yes, the work stays on this one.
    leave: at the end, leave a cluster that was joined for these jobs; one of this machine alone
        then ends, and gives its memory back.
    advice: what to do when too many workers die, for commands without --cluster.max-failures.
    """
    if not jobs:
        return
    if config.workers == 0:
        yield from _run_here(setup, jobs, config)
        return
    was_in = in_cluster()
    if config.workers is None and not was_in and not find_cluster():
        done = 0
        for found in _begin_here(setup, jobs, config, log):
            done += 1
            yield found
        jobs = jobs[done:]
        if not jobs:
            return
        import torch

        torch.cuda.empty_cache()  # of a GPU that a worker gets now
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of jobs beside one that failed
    join()
    import ray  # not before: Ray reads the environment that join sets

    try:
        resources = max_resources() if config.workers else ray.cluster_resources()
        home = None if sees is None else _only_node(sees, log)
        if home:
            resources = home["Resources"]
        workers, on_gpu = place(config, resources, len(jobs))
        if at_most and at_most > workers and workers < len(jobs):
            log(f"note: there is room for {workers} of {at_most} workers: using those")
        workers = min(workers, at_most or workers)
        log_if_busy(workers * config.cpus_per_worker)
        node_id = home["NodeID"] if home else None
        pool: _Pool[Job, Result] = _Pool(setup, jobs, config, on_gpu, log, node_id, advice)
        yield from pool.run(workers)
    finally:
        if leave and not was_in:
            ray.shutdown()


def _only_node(sees: Callable[[], bool], log: Log) -> dict[str, Any] | None:
    """This node, as Ray describes it, if others do not see what the work needs."""
    import ray

    nodes = alive_nodes()
    if len(nodes) == 1:
        return None
    probes = Nodes(START_S)
    try:
        answers = probes.ask([sees] * len(probes.names))
    finally:
        probes.close()
    blind = sum(answer is not True for answer in answers)
    if not blind:
        return None
    log(f"note: {blind} other nodes do not see the files, so all work stays on this one")
    here = ray.get_runtime_context().get_node_id()
    return next(node for node in nodes if node["NodeID"] == here)


def _run_here(
    setup: Setup[Job, Result], jobs: Sequence[Job], config: PoolConfig
) -> Iterator[tuple[Job, Result]]:
    with local_worker(config) as device:
        work = setup(device)
        for job in jobs:
            yield job, work(job)


def _begin_here(
    setup: Setup[Job, Result], jobs: Sequence[Job], config: PoolConfig, log: Log
) -> Iterator[tuple[Job, Result]]:
    """The first jobs, until it is known that workers would be quicker; all of them if not."""
    import torch

    resources = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    workers, _ = place(config, resources, len(jobs))
    here = f"{socket.gethostname()}:{os.getpid()}"
    log(f"worker (host:pid) {here}, this process: little work is done before Ray has started")
    done, began, results = 0, time.monotonic(), _run_here(setup, jobs, config)
    for job, result in results:
        yield job, result
        done, seconds = done + 1, time.monotonic() - began
        left = seconds * (len(jobs) - done)
        # The first job pays for imports and set-up too.
        if workers > 1 and left > WORTH_RAY_S and (done > 1 or seconds > WORTH_RAY_S):
            log(
                f"about {left:.0f} s in this process: starting {workers} workers "
                "(--cluster.workers 0 does without)"
            )
            return
        began = time.monotonic()


def on_gpus(config: PoolConfig) -> bool:
    """Whether ``run_jobs`` gives its workers GPUs; joins the cluster to know."""
    if config.workers == 0:
        import torch

        return config.device != "cpu" and torch.cuda.is_available()
    join()
    return wants_gpus(config, max_resources())


def place(config: PoolConfig, resources: dict[str, float], num_jobs: int) -> tuple[int, bool]:
    """How many workers, and whether each has a GPU; ValueError if so many never fit."""
    cpus, gpus = resources.get("CPU", 0), int(resources.get("GPU", 0))
    on_gpu = wants_gpus(config, resources)
    room = int(cpus / config.cpus_per_worker + 1e-9)
    fitting = min(room, gpus) if on_gpu else room
    wanted = config.workers or max(fitting, 1)
    if wanted > fitting:
        gpu_words = f" and {wanted} GPUs" if on_gpu else ""
        raise ValueError(
            f"cluster.workers ({wanted}) x cluster.cpus_per_worker "
            f"({config.cpus_per_worker:g}) needs {wanted * config.cpus_per_worker:g} CPUs"
            f"{gpu_words}, the cluster has {cpus:g} CPUs and {gpus} GPUs. Try "
            f"--cluster.workers {fitting} (0 is this process alone)."
        )
    return min(wanted, num_jobs), on_gpu


class _Worker:
    """What runs in a worker process."""

    def set_up(self, setup: Setup[Job, Result], threads: int, on_gpu: bool) -> str:
        """Make ready for jobs; host:pid."""
        import torch

        from cbdm_scale.devices import open_device

        torch.set_num_threads(threads)
        self.work = setup(open_device(on_gpu))
        return f"{socket.gethostname()}:{os.getpid()}"

    def do(self, job: Any) -> Any:
        """One job."""
        return self.work(job)


class _Pool(Generic[Job, Result]):
    """Hands jobs to the workers that are ready; replaces the ones that die."""

    def __init__(
        self,
        setup: Setup[Job, Result],
        jobs: Sequence[Job],
        config: PoolConfig,
        on_gpu: bool,
        log: Log,
        node_id: str | None,
        advice: str,
    ):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.config, self.on_gpu, self.log = config, on_gpu, log
        self.advice = advice or (
            "What is finished is kept: the same command goes on. Smaller jobs need less "
            f"memory; cluster.max_failures ({config.max_failures}) is how many may die."
        )
        self.setup = ray.put(setup)  # sent once, however many workers
        where = NodeAffinitySchedulingStrategy(node_id, soft=False) if node_id else "DEFAULT"
        self.make_worker = ray.remote(
            scheduling_strategy=where,
            num_cpus=config.cpus_per_worker,
            num_gpus=int(on_gpu),
            runtime_env={"env_vars": worker_env(config.threads)},
        )(_Worker)
        self.todo = deque(jobs)
        self.busy: dict[Any, tuple[Any, Job | None]] = {}  # ref -> worker, job or set-up
        self.idle: list[Any] = []

    def run(self, workers: int) -> Iterator[tuple[Job, Result]]:
        """Do all jobs on so many workers, which end with it."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        left, failures = len(self.todo), 0
        try:
            for _ in range(workers):
                self._start_worker()
            while left:
                [ref], _ = ray.wait(list(self.busy), num_returns=1)
                worker, job = self.busy.pop(ref)
                try:
                    result = ray.get(ref)
                except RayTaskError as error:
                    raise error.cause from None
                except RayError as error:  # the worker or its node is gone
                    failures += 1
                    self._replace(job, failures, error)
                    continue
                self._next_job(worker)
                if job is None:
                    self.log(f"worker (host:pid) {result}")
                else:
                    left -= 1
                    yield job, result
        finally:
            for worker in [*self.idle, *(worker for worker, _ in self.busy.values())]:
                ray.kill(worker)

    def _start_worker(self) -> None:
        worker = self.make_worker.remote()
        ref = worker.set_up.remote(self.setup, self.config.threads, self.on_gpu)
        self.busy[ref] = worker, None

    def _next_job(self, worker: Any) -> None:
        if self.todo:
            job = self.todo.popleft()
            self.busy[worker.do.remote(job)] = worker, job
        else:
            self.idle.append(worker)

    def _replace(self, job: Job | None, failures: int, error: Exception) -> None:
        """Put the job of a dead worker first in line, and somebody on it."""
        first_line = clip(str(error).strip().partition("\n")[0], 400)
        if failures > self.config.max_failures:
            raise RuntimeError(
                f"{failures} workers died, the last with: {first_line}. {self.advice}"
            ) from error
        self.log(f"a worker died and is replaced ({first_line})")
        if job is not None:
            self.todo.appendleft(job)
        if self.idle and self.todo:
            self._next_job(self.idle.pop())
        else:
            self._start_worker()
