"""Batches from processes that may die or hang: an error in bounded time, never silence."""

import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch

from cbdm_scale.storage.wording import shorten

START_S = 60.0
"""Seconds more for the first batch: processes import torch first."""
LOOK_S = 0.5


class LoaderError(RuntimeError):
    """A loader process that is gone or does not answer."""


class Watch:
    """Kills processes that keep a consumer waiting for too long."""

    def __init__(self, processes: list[Any], patience_s: float) -> None:
        self.processes, self.patience_s = processes, patience_s
        self.gone: list[str] = []
        """Processes that ended by themselves, with their exit codes."""
        self.gave_up = False
        self._deadline = float("inf")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="loader watch")
        self._thread.start()

    def begin(self, more_s: float) -> None:
        """A consumer begins to wait, with so many seconds more than usual."""
        self._deadline = time.monotonic() + self.patience_s + more_s

    def done(self) -> None:
        """It waits no longer."""
        self._deadline = float("inf")

    def _look(self) -> None:
        while not self._end.wait(LOOK_S):
            self.note()
            if self.gone or time.monotonic() > self._deadline:
                self.kill()
                return

    def note(self) -> None:
        """Write down who is gone, before anybody is killed."""
        if not self.gone and not self.gave_up:
            dead = [process for process in self.processes if not process.is_alive()]
            self.gone = [f"{process.pid} ({process.exitcode})" for process in dead]

    def kill(self) -> None:
        """SIGKILL: a stopped process hears nothing else, and would hold up the exit."""
        self.gave_up = True
        for process in self.processes:
            process.kill()

    def close(self) -> None:
        """Stop watching."""
        self._end.set()
        self._thread.join()


def leave_with_parent(_: int) -> None:
    """In a loader process: end when the process that wants the batches is gone, even killed.

    torch looks whether the parent process changed, which with a fork server it never does: the
    server lives as long as its children.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "a loader process has a parent"
    sentinel = parent.sentinel

    def wait() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="parent watch").start()


def batches_of_processes(
    loader: "torch.utils.data.DataLoader[Any]", timeout_s: float
) -> Iterator[Any]:
    """What a DataLoader with processes gives; a LoaderError when they are gone or silent."""
    before = set(torch.multiprocessing.active_children())
    batches = iter(loader)
    processes = [p for p in torch.multiprocessing.active_children() if p not in before]
    watch, more_s = Watch(processes, timeout_s), START_S
    try:
        while True:
            watch.begin(more_s)
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if all(process.is_alive() for process in processes):
                    raise  # one of ours, sent from a process
                watch.note()
                raise LoaderError(_say(watch)) from error
            watch.done()
            more_s = 0
            yield batch
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            watch.kill()
        raise
    finally:
        watch.close()
        del batches  # ends the processes


def _say(watch: Watch) -> str:
    count = len(watch.processes)
    if watch.gone:
        return (
            f"data.num_workers ({count}): loader process {shorten(watch.gone)} is gone; exit "
            "code -9 is a kill, often for want of memory. Try fewer --data.num-workers or a "
            "smaller --data.prefetch-factor."
        )
    return (
        f"data.timeout_s ({watch.patience_s:g}): no batch came from the {count} loader "
        "processes for that long, and they were killed. Is the store or the disk of data.root "
        "slow? Try a larger --data.timeout-s."
    )
