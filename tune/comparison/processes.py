"""Jobs in processes of their own, each of which does several, one after the other.

A process imports the product once. It ends with this one, even if that is killed. What asks
this one to stop asks them too, whether or not the terminal has: each saves what it is at.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from cbdm_scale.cli.signals import interrupt, on_signal

Job = TypeVar("Job")
Work = Callable[[Job, int], None]
"""Does a job, in the process of this number."""
SAVING_S = 60.0
"""Seconds that the processes get to save what they are at."""


def run_jobs(work: Work[Job], jobs: Sequence[Job], parallel: int) -> Iterator[tuple[Job, str]]:
    """Each job as it ends, with what went wrong, or "".

    parallel: processes; 0 is this one. ``work`` and the jobs go to the processes by pickle, so
    ``work`` is a function of a module.
    """
    if not parallel:
        for job in jobs:
            yield job, _attempt(work, job, 0)
        return
    context = multiprocessing.get_context("spawn")
    todo, busy = list(jobs), dict[Connection, Job]()
    processes = []
    try:
        for number in range(min(parallel, len(jobs))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work, number), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            busy[ours] = todo.pop(0)
            ours.send(busy[ours])
        while busy:
            ready = wait(list(busy))
            for ours in [connection for connection in busy if connection in ready]:
                job = busy.pop(ours)
                try:
                    reason = ours.recv()
                except EOFError:
                    yield job, "its process died: the machine's log may say why"
                    continue
                if todo:
                    busy[ours] = todo.pop(0)
                    ours.send(busy[ours])
                yield job, reason
        for job in todo:  # all processes died
            yield job, "no process was left to do it"
    finally:
        deadline = time.monotonic() + SAVING_S
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0))
            process.kill()
            process.join()


def _attempt(work: Work[Any], job: Any, number: int) -> str:
    try:
        work(job, number)
    except (ValueError, RuntimeError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _serve(theirs: Connection, work: Work[Any], number: int) -> None:
    """In a process: do what is sent, say how it went."""
    from cbdm_scale.data.loader_processes import leave_with_parent

    leave_with_parent(number)
    # Nothing more is sent, or what it was at is saved.
    with suppress(EOFError, KeyboardInterrupt), on_signal(interrupt):
        while True:
            theirs.send(_attempt(work, theirs.recv(), number))
