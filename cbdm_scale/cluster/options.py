"""How many workers, where, and with how much patience."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cbdm_scale.storage.checks import (
    NonNegativeInt,
    PositiveFloat,
    Range,
    check_fields,
)
from cbdm_scale.storage.path_options import Folder

if TYPE_CHECKING:
    import torch

START_S = 600.0
"""Seconds that a first compilation may take, or the first meeting of GPUs."""
ReportCheckpoint = Callable[[str, dict[str, float]], None]
"""Called on every rank when a checkpoint (its path) is whole in storage, with its metrics."""
Log = Callable[[str], None]
"""Prints a line on the driver's console."""


def to_stdout(line: str) -> None:
    """The ``Log`` of a console; not ``print``, which Ray replaces while a program runs."""
    print(line, flush=True)


RankMain = Callable[["torch.device", ReportCheckpoint, Log], dict[str, Any]]
"""Called on every rank once the process group stands; training.distributed.run_in_world."""


@dataclass(frozen=True, kw_only=True)
class StorageOption:
    """Where runs are."""

    storage: Folder = "~/cbdm_scale/runs"
    """Folder or URL of all runs. With several nodes, one that all of them see."""


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a worker is."""

    cpus_per_worker: PositiveFloat = 1
    """Logical CPUs reserved for each worker; its number of threads (at least one), on which
    the last bits of a result may depend."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the network runs; auto is gpu if the cluster has any."""

    @property
    def threads(self) -> int:
        """Threads of torch in a worker."""
        return max(1, int(self.cpus_per_worker))


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(StorageOption, WorkerOptions):
    """Options --cluster.* of commands that train."""

    workers: NonNegativeInt = 2
    """Training processes over all nodes; with GPUs, one GPU each. 0: this process alone,
    without Ray."""

    min_workers: NonNegativeInt = 0
    """Fewest workers that go on while a node is away, with the same batch; 0: all of them."""

    resize_s: PositiveFloat = 60
    """With min_workers, seconds between two looks for nodes that have room for more workers."""

    gpus_per_worker: Annotated[float, Range(gt=0.5, le=1, hint="Workers share no GPU.")] = 1
    """Share of its GPU that each worker reserves. Below 1, evaluations beside training take
    what is left of one of them; both must fit into its memory."""

    min_nodes: NonNegativeInt = 0
    """Nodes that must have joined before the workers are placed, where they take a while."""

    max_failures: int = 10
    """How often workers that died are started again from the newest checkpoint."""

    max_preemption_failures: Annotated[int, Range(ge=-1)] = -1
    """The same where a node was taken away with notice (spot machines), which is no failure and
    is counted apart; -1: any number of times."""

    timeout_s: PositiveFloat = 60
    """Seconds after which a worker that does not answer is given up; at least 600 on GPUs and
    with train.compile, where a first step takes its time."""

    def __post_init__(self) -> None:
        check_fields(self, "cluster.")
        if self.min_workers > self.workers:
            raise ValueError(
                f"cluster.min_workers must be from 0 to cluster.workers ({self.workers}), got "
                f"{self.min_workers}. Try 1, or 0, which waits for all of them."
            )

    @property
    def ranks(self) -> int:
        """Processes that share a batch: the workers, or this one."""
        return max(1, self.workers)

    @property
    def fewest(self) -> int:
        """Ranks without which training waits."""
        return self.min_workers or self.ranks

    @property
    def words(self) -> str:
        """Who trains: "2 workers"."""
        return f"{self.workers} workers" if self.workers else "in this process, without Ray"

    def patient(self, slow_start: bool) -> "ClusterConfig":
        """With time enough for a first step that compiles, or for GPUs that are set up."""
        return replace(self, timeout_s=max(self.timeout_s, START_S)) if slow_start else self

    @property
    def gpus_beside(self) -> float:
        """GPUs that an evaluation beside training reserves, where training is on GPUs."""
        return round(1 - self.gpus_per_worker, 4) or 1.0


@dataclass(frozen=True, kw_only=True)
class PoolConfig(WorkerOptions):
    """Options --cluster.* of commands whose jobs are independent of each other."""

    workers: Annotated[int, Range(ge=0, hint="Try 0, which is this process alone.")] | None = (
        None
    )
    """Processes over all nodes, one GPU each where there are any. None: as many as the cluster
    has room for, and this process alone for little work on one machine. 0: this process alone,
    without Ray."""

    max_failures: int = 10
    """How many workers may die and be replaced."""

    def __post_init__(self) -> None:
        check_fields(self, "cluster.")

    @property
    def on_gpu(self) -> bool:
        """Whether workers have GPUs, as far as it is known without asking a cluster."""
        import torch

        there = torch.cuda.is_available()
        return self.device == "gpu" or (self.device == "auto" and there)


def worker_env(threads: int) -> dict[str, str]:
    """The environment of a worker that Ray starts, with so many threads for torch.

    Its work may be in another thread than the main one, which then needs the arena of malloc
    that ``devices.open_device`` tells to keep memory.
    """
    return {"OMP_NUM_THREADS": str(threads), "MALLOC_ARENA_MAX": "1"}


def wants_gpus(config: WorkerOptions, resources: Mapping[str, float]) -> bool:
    """Whether the workers get GPUs in a cluster with these resources.

    A cluster with fewer GPUs than workers wants them too: training never takes the CPU instead
    without a word.
    """
    return config.device == "gpu" or (config.device == "auto" and resources.get("GPU", 0) >= 1)
