"""What a fault is: a generator that injects it, proves it, and yields the proof.

What comes after the ``yield`` is done once the run has recovered: it checks what a table
cannot show, and puts back what was taken away. A fault that could not be proven raises
NotInjected, and is never counted.
"""

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.faults.observed import ObservedRun
from benchmarks.hosts import Hosts, processes

PATIENCE_S = 15.0
"""Seconds in which a signal has to show."""


class NotInjected(Exception):
    """The fault did not happen, so nothing can be said about it."""


class Failed(Exception):
    """The run did not take the fault as it should have."""


@dataclass
class Scene:
    """What there is to break."""

    run: ObservedRun
    hosts: Hosts
    folder: Path
    """Of the files by which stores and servers are told to fail."""

    def a_worker(self, chance: random.Random) -> tuple[int, int]:
        """(rank, pid) of one that is alive."""
        rank = chance.randrange(len(self.run.pids))
        pid = self.run.pids[rank]
        if is_dead(pid):
            raise NotInjected(f"worker {rank} (pid {pid}) was dead already")
        return rank, pid

    def a_host(self, chance: random.Random) -> tuple[int, int]:
        """(rank of a worker that is alive, its host)."""
        rank, pid = self.a_worker(chance)
        return rank, next(h for h in range(self.hosts.number) if pid in processes(h))


Injection = Generator[str, None, None]
Fault = Callable[[Scene, random.Random], Injection]


@dataclass(frozen=True)
class Kind:
    says: str
    """Row of the table."""
    inject: Fault
    restarts: bool = True
    """Whether new workers have to begin before the run has recovered."""
    backend: str = "folder"
    """Where the run keeps its files and numbers (backends.py)."""


def until(what: Callable[[], bool], seconds: float, words: str) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise NotInjected(words)
        time.sleep(0.02)


def status(pid: int) -> str:
    try:
        return str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return "gone"


def is_dead(pid: int) -> bool:
    return status(pid) in ("gone", psutil.STATUS_ZOMBIE)
