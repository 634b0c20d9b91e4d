"""A run on Ray Train workers: started, started again after a failure, stopped by a signal."""

import os
import traceback
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from cbdm_scale.cluster.connect import max_resources
from cbdm_scale.cluster.console import Console
from cbdm_scale.cluster.local import run_local
from cbdm_scale.cluster.options import ClusterConfig, Log, RankMain, wants_gpus, worker_env
from cbdm_scale.cluster.process_group import join_group
from cbdm_scale.cluster.ray_internals import data_parallel_trainer, disable_sigint_handler
from cbdm_scale.cluster.stop import stop_on_signal
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import clip

if TYPE_CHECKING:
    from cbdm_scale.storage.folder import Storage

MEETING_S = 180.0
"""Seconds that workers wait for each other in Ray Train's barriers, the first of them at their
start, where one may still be reading its libraries from a slow disk."""
PLACING_S = 20
"""Seconds after which elastic workers that cannot be placed are planned anew."""


def launch(rank_main: RankMain, config: ClusterConfig, run: "Storage") -> dict[str, Any]:
    """Run ``rank_main`` on all workers, again after a failure; what rank 0 returned.

    SIGTERM, SIGINT and SIGHUP leave a file "stop" in the run folder: rank 0 sees it, all ranks
    save and end. A second signal ends at once. "signal" of what is returned is the number of
    the one that came, or 0. With ``cluster.workers`` 0 the one rank is in this process.
    """
    if config.workers == 0:
        return run_local(rank_main, config, run)
    from ray.train import (
        FailureConfig,
        LoggingConfig,
        PreemptionError,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
    )

    use_gpu = wants_gpus(config, max_resources())
    elastic = config.fewest < config.workers
    filesystem, path = run.child(RunDir.RAY).pyarrow_filesystem()

    # Ray Train's own barriers, of which a report has one, wait for ever unless told.
    meeting_s = max(config.timeout_s, MEETING_S)
    os.environ.setdefault("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", str(meeting_s))
    if elastic:  # what it plans with may name a node that died in the last 20 s
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(PLACING_S))
    console = Console()
    given = {"rank_main": rank_main, "config": config, "log": console.log}
    trainer = data_parallel_trainer()(
        # As train_loop_config the controller would read it too, and load torch.
        partial(_on_worker, given),
        scaling_config=ScalingConfig(
            num_workers=(config.min_workers, config.workers) if elastic else config.workers,
            elastic_resize_monitor_interval_s=config.resize_s,
            use_gpu=use_gpu,
            resources_per_worker={
                "CPU": config.cpus_per_worker,
                "GPU": config.gpus_per_worker if use_gpu else 0,
            },
        ),
        run_config=RunConfig(
            name=f"{datetime.now():%Y%m%dT%H%M%S}-{os.getpid()}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(
                max_failures=config.max_failures,
                max_preemption_failures=config.max_preemption_failures,
            ),
            worker_runtime_env={"env_vars": worker_env(config.threads)},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    disable_sigint_handler(trainer)
    with stop_on_signal(run, lambda: console.heard) as asked, console.printing():
        try:
            result = trainer.fit()
        except PreemptionError as error:
            raise RuntimeError(
                f"nodes were taken away {config.max_preemption_failures + 1} times "
                f"(cluster.max_preemption_failures), last: {clip(error, 600)}. The same "
                "command goes on from the newest checkpoint."
            ) from error
        except TrainingFailedError as error:
            raise RuntimeError(
                f"training failed {config.max_failures + 1} times (cluster.max_failures), "
                f"last: {clip(error, 600)}. The same command goes on from the newest "
                "checkpoint."
            ) from error
    return {**(result.return_value or {}), "signal": asked[0] if asked else 0}


def _on_worker(given: dict[str, Any]) -> dict[str, Any]:
    """What Ray Train calls on every worker."""
    import torch
    import torch.distributed as dist

    config: ClusterConfig = given["config"]
    log: Log = given["log"]
    torch.set_num_threads(config.threads)
    device = join_group(config)

    def report_checkpoint(path: str, metrics: dict[str, float]) -> None:
        import ray.train

        # A pointer: Ray takes a Checkpoint only from its own folder, or copies it there.
        ray.train.report({**metrics, "checkpoint_path": path})

    try:
        returned: dict[str, Any] = given["rank_main"](device, report_checkpoint, log)
    except Exception:
        log(f"worker {dist.get_rank()} failed:\n{traceback.format_exc()}")
        raise
    finally:
        dist.destroy_process_group()
    return returned
