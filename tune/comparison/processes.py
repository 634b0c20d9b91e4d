"""Jobs in processes of their own, each of which does several, one after the other.

A process imports the product once. It ends with this one, even if that is killed, and the
terminal's Ctrl-C is this one's to answer.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Job = TypeVar("Job")
Work = Callable[[Job, int], None]
"""Does a job, in the process of this number."""


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
        for process in processes:
            process.terminate()
            process.join()


def _attempt(work: Work[Any], job: Any, number: int) -> str:
    try:
        work(job, number)
    except (ValueError, RuntimeError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _serve(theirs: Connection, work: Work[Any], number: int) -> None:
    """In a process: do what is sent, say how it went."""
    from cbdm_scale.data.processes import leave_with_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent(number)
    with suppress(EOFError):  # nothing more is sent
        while True:
            theirs.send(_attempt(work, theirs.recv(), number))
