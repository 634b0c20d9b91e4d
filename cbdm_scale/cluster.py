"""The only import of ray in the package: the loop on Ray Train workers.

What Ray does here: place the processes, form their group, start them again when one dies.
Checkpoints are ours; Ray is told of them and never copies them.
"""

import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from cbdm_scale.storage import Storage
    from cbdm_scale.training.world import World

LOOPBACK = "127.0.0.1"

Published = Callable[[str, dict[str, float]], None]
"""Called on every rank when a checkpoint (its path) is whole in storage."""
Say = Callable[[str], None]
"""Prints a line on the driver's console."""
RankMain = Callable[["World", Published, Say], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    workers: int = 2
    """Training processes over all nodes; with GPUs, one GPU each."""

    cpus_per_worker: float = 1
    """Logical CPUs reserved for each worker; its number of threads (at least one)."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the network runs; auto is gpu if the cluster has any."""

    storage: str = "~/cbdm_scale/runs"
    """Folder or URL of all runs. With several nodes, one that all of them see."""

    max_failures: int = 10
    """How often workers that died are started again from the newest checkpoint."""

    timeout_s: float = 60
    """Seconds after which a worker that does not answer is given up."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"cluster.workers must be at least 1, got {self.workers}. Try 2.")
        if self.cpus_per_worker <= 0:
            raise ValueError(
                f"cluster.cpus_per_worker must be above 0, got {self.cpus_per_worker}. Try 1."
            )
        if self.timeout_s <= 0:
            raise ValueError(
                f"cluster.timeout_s must be above 0, got {self.timeout_s}. Try 60."
            )

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus_per_worker))


def set_environment() -> None:
    """Ray's switches that must be set before it is imported; the user's own values win."""
    quiet = {
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    token = os.path.expanduser("~/.ray/auth_token")
    if "RAY_AUTH_MODE" not in os.environ and os.path.exists(token):
        os.environ["RAY_AUTH_MODE"] = "token"  # a client never turns it on by itself


def connect(config: ClusterConfig) -> None:
    """Join the cluster of RAY_ADDRESS or of this machine, or start one on loopback.

    RAY_ADDRESS=local always starts one. ValueError if the workers could never be placed: at
    once, instead of waiting for ever.
    """
    set_environment()
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    if address == "local" and not ray.is_initialized():
        start_local()
    elif not ray.is_initialized():
        try:
            ray.init(address=address or "auto", log_to_driver=False)
        except ConnectionError as error:
            if address:
                raise ValueError(
                    f"RAY_ADDRESS ({address}) does not answer: {error}. Start Ray there, or "
                    "unset it to use this machine."
                ) from error
            start_local()
    check_resources(config, ray.cluster_resources())
    free = ray.available_resources().get("CPU", 0)
    if free < config.workers * config.cpus_per_worker:
        print(
            f"waiting for CPUs: {config.workers * config.cpus_per_worker:g} needed, {free:g} of "
            f"the cluster's {ray.cluster_resources().get('CPU', 0):g} are free now",
            flush=True,
        )


def start_local() -> None:
    """A cluster of this machine alone, which nothing outside can reach.

    Ray replaces a loopback address by the host's, except where it believes that there can be
    no cluster (as on macOS): it is told so, here and in the processes that it starts.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(
        address="local",
        include_dashboard=True,
        dashboard_host=LOOPBACK,
        _node_ip_address=LOOPBACK,
        num_cpus=os.cpu_count(),
        log_to_driver=False,
    )


def check_resources(config: ClusterConfig, resources: dict[str, float]) -> None:
    need, have = config.workers * config.cpus_per_worker, resources.get("CPU", 0)
    if need > have:
        fitting = int(have / config.cpus_per_worker)
        raise ValueError(
            f"cluster.workers ({config.workers}) x cluster.cpus_per_worker "
            f"({config.cpus_per_worker:g}) needs {need:g} CPUs, the cluster has {have:g}. Try "
            f"--cluster.workers {max(fitting, 1)} or --cluster.cpus-per-worker "
            f"{max(have / config.workers, 0.1):.2g}."
        )
    gpus = int(resources.get("GPU", 0))
    if config.device == "gpu" and gpus < config.workers:
        raise ValueError(
            f"cluster.device gpu with cluster.workers ({config.workers}) needs as many GPUs, "
            f"the cluster has {gpus}. Try --cluster.workers {gpus or 1} or --cluster.device cpu."
        )


def launch(rank_main: RankMain, config: ClusterConfig, run: "Storage") -> dict[str, Any]:
    """Run ``rank_main`` on all workers, again after a failure; what rank 0 returned.

    SIGTERM and SIGINT leave a file "stop" in the run folder: rank 0 sees it, all ranks save
    and end. A second signal ends at once.
    """
    import ray
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) > 1 and run.is_local:
        print(
            f"note: cluster.storage ({run.url}) must be a folder that all {len(nodes)} nodes "
            "share, such as NFS.",
            flush=True,
        )
    gpus = ray.cluster_resources().get("GPU", 0)
    use_gpu = config.device == "gpu" or (config.device == "auto" and gpus >= config.workers)
    env = {"OMP_NUM_THREADS": str(config.threads)}
    if len(nodes) == 1 and nodes[0]["NodeManagerAddress"] == LOOPBACK:
        env["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    filesystem, path = run.child(".ray").pyarrow_filesystem()

    console = Console()
    trainer = DataParallelTrainer(
        _on_worker,
        train_loop_config={"rank_main": rank_main, "config": config, "say": console.say},
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": config.cpus_per_worker, "GPU": int(use_gpu)},
        ),
        run_config=RunConfig(
            name=f"{datetime.now():%Y%m%dT%H%M%S}-{os.getpid()}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=config.max_failures),
            worker_runtime_env={"env_vars": env},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    with stop_on_signal(run), console.printing():
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            raise RuntimeError(
                f"training failed {config.max_failures + 1} times (cluster.max_failures), last: "
                f"{error}. The same command goes on from the newest checkpoint."
            ) from error
    returned: dict[str, Any] = result.return_value or {}
    return returned


def _on_worker(loop_config: dict[str, Any]) -> dict[str, Any]:
    """What Ray Train calls on every worker."""
    import torch
    import torch.distributed as dist

    from cbdm_scale.training.world import Processes

    config: ClusterConfig = loop_config["config"]
    say: Say = loop_config["say"]
    torch.set_num_threads(config.threads)
    device = join_group(config)
    world = Processes(device, config.timeout_s)

    def published(path: str, metrics: dict[str, float]) -> None:
        import ray.train

        # A pointer: Ray takes a Checkpoint only from its own folder, or copies it there.
        ray.train.report({**metrics, "checkpoint_path": path})

    try:
        returned: dict[str, Any] = loop_config["rank_main"](world, published, say)
    except Exception:
        say(f"worker {world.rank} failed:\n{traceback.format_exc()}")
        raise
    finally:
        dist.destroy_process_group()
    return returned


def join_group(config: ClusterConfig) -> "torch.device":
    """Form the process group of the workers; the device of this one.

    Rank 0's store listens on its node's address only, which is loopback on one machine: left
    to itself it would listen on all of them.
    """
    import ray
    import ray.train
    import torch
    import torch.distributed as dist
    from ray.train.collective import broadcast_from_rank_zero

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    listener = None
    if rank == 0:
        listener = socket.create_server((ray.util.get_node_ip_address(), 0), backlog=4 * size)
    here = listener.getsockname()[:2] if listener else None
    host, port = broadcast_from_rank_zero(here)
    timeout = timedelta(seconds=config.timeout_s)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host,
        port,
        size,
        is_master=rank == 0,
        timeout=timeout,
        master_listen_fd=listener.detach() if listener else None,
    )
    on_gpu = bool(ray.get_gpu_ids())
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    return device


class Console:
    """Lines from the workers to the driver's console, without Ray's prefixes and noise."""

    def __init__(self) -> None:
        import ray
        from ray.util.queue import Queue

        here = ray.get_runtime_context().get_node_id()
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            here, soft=True
        )
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": strategy})
        self.say = partial(_put, self._queue)

    def _print(self, timeout_s: float) -> None:
        from ray.util.queue import Empty

        with suppress(Empty):
            while True:
                print(self._queue.get(timeout=timeout_s), flush=True)
                timeout_s = 0.05

    @contextmanager
    def printing(self) -> Iterator[None]:
        """While inside, print what the workers say."""
        over = threading.Event()

        def follow() -> None:
            while not over.is_set():
                with suppress(Exception):  # the cluster may be going down
                    self._print(0.5)

        thread = threading.Thread(target=follow, daemon=True, name="console")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(5)
            with suppress(Exception):
                self._print(0.1)
                self._queue.shutdown()


def _put(queue: Any, text: str) -> None:
    with suppress(Exception):  # a console that is gone must not stop training
        queue.actor.put_nowait.remote(text)


@contextmanager
def stop_on_signal(run: "Storage") -> Iterator[None]:
    """Turn the first SIGTERM or SIGINT into a request to save and stop."""
    run.remove("stop")
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def handler(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        run.write_bytes("stop", f"{signal.Signals(number).name}\n".encode())
        print("stopping: the workers save a checkpoint first (once more: at once)", flush=True)

    signals = (signal.SIGTERM, signal.SIGINT)  # ray.init has set its own before
    before = [signal.signal(s, handler) for s in signals]
    try:
        yield
    finally:
        for s, old in zip(signals, before, strict=True):
            signal.signal(s, old)
        run.remove("stop")
