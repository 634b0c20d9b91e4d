"""One job at a time beside training, in a process of its own, where the cluster has room.

Ray Train 2.60 can validate beside training too (``ValidationConfig``). It is not used here: it
validates only checkpoints that Ray itself stores, and ours it never copies; it asks for a CPU
without looking whether one is free, and the end of a run then waits for it for ever; it hands
the result to its controller, not to the rank that logs, names the best checkpoint and drops old
ones; and a validation that failed leaves an empty result, without its reason.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cbdm_scale.cluster.options import Log, worker_env
from cbdm_scale.cluster.progress import clock
from cbdm_scale.storage.wording import clip

if TYPE_CHECKING:
    import torch

ReportProgress = Callable[[float], None]
"""Called by a job with the share of it that is done, 0..1."""
Work = Callable[["torch.device", Any, ReportProgress], Any]
"""(device, job, report_progress) -> result; sent to the process that does it."""

MAX_TRIES = 2
NICENESS = 10
"""Of the process: where processors are shared after all, training goes first."""


@dataclass(frozen=True)
class Finished:
    """How a job ended."""

    job: Any
    result: Any
    """None if it failed."""
    reason: str = ""
    """Why it failed; "" if it did not."""


class _Actor:
    """What runs in the process; ``progress`` answers while ``run`` is at work."""

    def __init__(self) -> None:
        self.share = 0.0

    def address(self) -> str:
        return f"{socket.gethostname()}:{os.getpid()}"

    def progress(self) -> float:
        return self.share

    def run(self, work: Work, job: Any, threads: int, on_gpu: bool) -> Any:
        import torch

        from cbdm_scale.devices import open_device

        os.nice(NICENESS)
        torch.set_num_threads(threads)
        device = open_device(on_gpu)

        def report_progress(share: float) -> None:
            self.share = share

        return work(device, job, report_progress)


class BackgroundWorker:
    """Belongs to one training worker, and ends with it. Only ``poll`` and ``progress`` wait.

    Its process has the kind of device and the number of threads that a training worker has, on
    which the last bits of a result depend.
    """

    def __init__(self, work: Work, cpus: float, threads: int, gpus: float, log: Log):
        """cpus, gpus: what the process reserves; without a share of a GPU it is on the CPU."""
        self.work, self.cpus, self.threads, self.gpus = work, cpus, threads, gpus
        self.log = log
        self.job: Any = None
        self._tries = 0
        self._actor: Any = None
        self._address: Any = None
        self._result: Any = None
        self._began = 0.0

    def has_room(self) -> bool:
        """Whether the cluster has CPUs, and GPUs if need be, that nobody has reserved."""
        import ray

        free = ray.available_resources()
        need = {"CPU": self.cpus, "GPU": self.gpus}
        return all(free.get(name, 0) >= number - 1e-9 for name, number in need.items())

    @property
    def is_busy(self) -> bool:
        """Whether a job was started whose end ``poll`` has not given yet."""
        return self._result is not None

    def start(self, job: Any) -> None:
        """Begin a job, as soon as Ray finds a place for it."""
        assert not self.is_busy, "one job at a time"
        self.job, self._tries = job, 0
        self._start()

    def _start(self) -> None:
        import ray

        self._tries += 1
        self._began = time.monotonic()
        actor = ray.remote(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_concurrency=2,
            runtime_env={"env_vars": worker_env(self.threads)},
        )(_Actor)
        self._actor = actor.remote()
        self._address = self._actor.address.remote()
        self._result = self._actor.run.remote(
            self.work, self.job, self.threads, bool(self.gpus)
        )

    def place(self) -> str:
        """host:pid of the process; "" while it has no place yet, or is gone."""
        import ray

        found = ray.wait([self._address], timeout=0)[0]
        try:
            return str(ray.get(self._address)) if found else ""
        except ray.exceptions.RayError:
            return ""

    def poll(self, seconds: float = 0.0) -> Finished | None:
        """The job's end, waiting for it for so long; None before.

        A job whose process died is begun again once. What it raises is its end.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        if not ray.wait([self._result], timeout=seconds)[0]:
            return None
        try:
            finished = Finished(self.job, ray.get(self._result))
        except RayTaskError as error:
            finished = Finished(self.job, None, f"{type(error.cause).__name__}: {error.cause}")
        except RayError as error:  # the process or its node is gone
            reason = clip(str(error).strip().partition("\n")[0], 400)
            if self._tries < MAX_TRIES:
                self.log(
                    f"the process that works beside training died and is replaced: {reason}"
                )
                self.close()
                self._start()
                return None
            reason = f"its process died {self._tries} times: {reason}"
            finished = Finished(self.job, None, reason)
        self.close()
        return finished

    def progress(self) -> str:
        """How far the job is and how long it takes still, in words; waits a second at most."""
        import ray

        seconds = time.monotonic() - self._began
        answer = self._actor.progress.remote()
        words = "starting"
        if self.place() and ray.wait([answer], timeout=1)[0]:
            with suppress(ray.exceptions.RayError):  # ``poll`` finds that it died
                share = ray.get(answer)
                words = f"{share:.0%}"
                if share:
                    words += f", {clock(seconds * (1 - share) / share)} left,"
        return f"{words} after {seconds:.0f} s"

    def close(self) -> None:
        """End the process, whether or not it is done."""
        import ray

        if self._actor is not None:
            ray.kill(self._actor)
        self._actor = self._address = self._result = None
