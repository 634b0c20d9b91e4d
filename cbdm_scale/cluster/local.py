"""A worker that is this process: the device and the threads of one, without Ray.

One rank of a run has the same bits here as on a worker of Ray (on a GPU with
train.deterministic): its device is opened in the same way, and torch has as many threads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cbdm_scale.cluster.options import ClusterConfig, RankMain, WorkerOptions, wants_gpus
from cbdm_scale.cluster.progress import Screen
from cbdm_scale.cluster.stop import stop_on_signal

if TYPE_CHECKING:
    import torch

    from cbdm_scale.storage.folder import Storage


def open_local_device(config: WorkerOptions) -> "torch.device":
    """The device of a worker that is this process.

    ValueError if ``cluster.device`` is gpu and there is none, RuntimeError if it does not work.
    """
    import torch

    from cbdm_scale.devices import open_device

    gpus = torch.cuda.device_count()
    on_gpu = wants_gpus(config, {"GPU": gpus})
    if on_gpu and not gpus:
        raise ValueError(
            "cluster.device (gpu) needs a GPU on this machine, and torch sees none. Try "
            "--cluster.device cpu."
        )
    return open_device(on_gpu)


@contextmanager
def local_worker(config: WorkerOptions) -> Iterator["torch.device"]:
    """The device, with a worker's number of threads while inside."""
    import torch

    device = open_local_device(config)
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        yield device
    finally:
        torch.set_num_threads(before)


def run_local(rank_main: RankMain, config: ClusterConfig, run: "Storage") -> dict[str, Any]:
    """``launch`` of one rank in this process; what it raises ends the run."""
    screen, lines = Screen(), 0

    def log(text: str) -> None:
        nonlocal lines
        lines += 1
        screen.show(text)

    def report_checkpoint(path: str, metrics: dict[str, float]) -> None:
        """Nobody starts this process again."""

    try:
        with local_worker(config) as device, stop_on_signal(run, lambda: lines > 0) as asked:
            returned = rank_main(device, report_checkpoint, log)
    finally:
        screen.close()
    return {**returned, "signal": asked[0] if asked else 0}
