"""Independent jobs on all workers of a cluster; a job whose worker died is done again.

Every worker is set up once (a network is loaded) and then takes one job after the other. What
comes of a job depends on the job alone, so neither the number of workers nor their order shows.
"""

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cbdm_scale.cluster.connect import join, log_if_busy, max_resources
from cbdm_scale.cluster.options import Log, PoolConfig

if TYPE_CHECKING:
    import torch

Job = TypeVar("Job")
Result = TypeVar("Result")
Setup = Callable[["torch.device"], Callable[[Job], Result]]
"""Called once on every worker with its device; what it returns does the jobs there."""


def run_jobs(
    setup: Setup[Job, Result], jobs: Sequence[Job], config: PoolConfig, log: Log = print
) -> Iterator[tuple[Job, Result]]:
    """(job, result) of every job, as they get done, in any order.

    What ``setup`` or a job raises ends it all and is raised here. SIGTERM does as Ctrl-C does.
    """
    if not jobs:
        return
    if config.workers == 0:
        with sigterm_interrupts():
            yield from _run_here(setup, jobs, config)
        return
    join()
    import ray  # not before: Ray reads the environment that join sets

    resources = max_resources() if config.workers else ray.cluster_resources()
    workers, on_gpu = place(config, resources, len(jobs))
    log_if_busy(workers * config.cpus_per_worker)
    pool: Pool[Job, Result] = Pool(setup, jobs, config, on_gpu, log)
    with sigterm_interrupts():
        yield from pool.run(workers)


def _run_here(
    setup: Setup[Job, Result], jobs: Sequence[Job], config: PoolConfig
) -> Iterator[tuple[Job, Result]]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        on_gpu = config.device != "cpu" and torch.cuda.is_available()
        if config.device == "gpu" and not on_gpu:
            raise ValueError(
                "cluster.device gpu with cluster.workers 0 needs a GPU here, and there is "
                "none. Try --cluster.device cpu."
            )
        work = setup(torch.device("cuda" if on_gpu else "cpu"))
        for job in jobs:
            yield job, work(job)
    finally:
        torch.set_num_threads(before)


def place(config: PoolConfig, resources: dict[str, float], num_jobs: int) -> tuple[int, bool]:
    """How many workers, and whether each has a GPU; ValueError if so many never fit."""
    cpus, gpus = resources.get("CPU", 0), int(resources.get("GPU", 0))
    on_gpu = config.device == "gpu" or (config.device == "auto" and gpus > 0)
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


class Worker:
    """What runs in a worker process."""

    def set_up(self, setup: Setup[Job, Result], threads: int, on_gpu: bool) -> str:
        """Make ready for jobs; host:pid."""
        import torch

        torch.set_num_threads(threads)
        self.work = setup(torch.device("cuda", 0) if on_gpu else torch.device("cpu"))
        return f"{socket.gethostname()}:{os.getpid()}"

    def do(self, job: Any) -> Any:
        return self.work(job)


class Pool(Generic[Job, Result]):
    """Hands jobs to the workers that are ready; replaces the ones that die."""

    def __init__(
        self,
        setup: Setup[Job, Result],
        jobs: Sequence[Job],
        config: PoolConfig,
        on_gpu: bool,
        log: Log,
    ):
        import ray

        self.config, self.on_gpu, self.log = config, on_gpu, log
        self.setup = ray.put(setup)  # sent once, however many workers
        self.make_worker = ray.remote(
            num_cpus=config.cpus_per_worker,
            num_gpus=int(on_gpu),
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(config.threads)}},
        )(Worker)
        self.todo = deque(jobs)
        self.busy: dict[Any, tuple[Any, Job | None]] = {}  # promise -> worker, job or set-up
        self.idle: list[Any] = []

    def run(self, workers: int) -> Iterator[tuple[Job, Result]]:
        import ray
        from ray.exceptions import RayError, RayTaskError

        left, failures = len(self.todo), 0
        try:
            for _ in range(workers):
                self.start_worker()
            while left:
                [promise], _ = ray.wait(list(self.busy), num_returns=1)
                worker, job = self.busy.pop(promise)
                try:
                    result = ray.get(promise)
                except RayTaskError as error:
                    raise error.cause from None
                except RayError as error:  # the worker or its node is gone
                    failures += 1
                    self.replace(job, failures, error)
                    continue
                self.next_job(worker)
                if job is None:
                    self.log(f"worker (host:pid) {result}")
                else:
                    left -= 1
                    yield job, result
        finally:
            for worker in [*self.idle, *(worker for worker, _ in self.busy.values())]:
                ray.kill(worker)

    def start_worker(self) -> None:
        worker = self.make_worker.remote()
        promise = worker.set_up.remote(self.setup, self.config.threads, self.on_gpu)
        self.busy[promise] = worker, None

    def next_job(self, worker: Any) -> None:
        if self.todo:
            job = self.todo.popleft()
            self.busy[worker.do.remote(job)] = worker, job
        else:
            self.idle.append(worker)

    def replace(self, job: Job | None, failures: int, error: Exception) -> None:
        """Put the job of a dead worker first in line, and somebody on it."""
        first_line = str(error).strip().partition("\n")[0]
        if failures > self.config.max_failures:
            raise RuntimeError(
                f"{failures} workers died, more than cluster.max_failures "
                f"({self.config.max_failures}), the last with: {first_line}. What is finished "
                "is kept: the same command goes on. Smaller jobs need less memory."
            ) from error
        self.log(f"a worker died and is replaced ({first_line})")
        if job is not None:
            self.todo.appendleft(job)
        if self.idle and self.todo:
            self.next_job(self.idle.pop())
        else:
            self.start_worker()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, also where ray.init has set another handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
