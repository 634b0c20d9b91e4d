"""The faults of processes and nodes. Each is a generator: it injects, proves it, yields the proof.

What comes after the ``yield`` is done once the run has recovered: it checks what a table cannot
show, and puts back what was taken away. A fault that could not be proven raises NotInjected, and
is never counted.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.faults.nodes import Nodes
from benchmarks.faults.watched import Watched

PATIENCE_S = 15.0
"""Seconds in which a signal has to show."""


class NotInjected(Exception):
    """The fault did not happen, so nothing can be said about it."""


class Failed(Exception):
    """The run did not take the fault as it should have."""


@dataclass
class Scene:
    """What there is to break."""

    run: Watched
    nodes: Nodes
    place: Any = None
    """Of faults.stores: what the run keeps its files or numbers in."""


Fault = Callable[[Scene, random.Random], Iterator[str]]


@dataclass(frozen=True)
class Kind:
    says: str
    """Row of the table."""
    inject: Fault
    restarts: bool = True
    """Whether new workers have to begin before the run has recovered."""
    needs: str = ""
    """The place of faults.stores that the run is in; "" is a local folder."""


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


def a_worker(scene: Scene, chance: random.Random) -> tuple[int, int]:
    """(rank, pid) of one that is alive."""
    rank = chance.randrange(len(scene.run.pids))
    pid = scene.run.pids[rank]
    if is_dead(pid):
        raise NotInjected(f"worker {rank} (pid {pid}) was dead already")
    return rank, pid


def kill_worker(scene: Scene, chance: random.Random) -> Iterator[str]:
    rank, pid = a_worker(scene, chance)
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_dead(pid), PATIENCE_S, f"pid {pid} survived -9")
    yield f"worker {rank} (pid {pid}) is gone"


def stop_worker(scene: Scene, chance: random.Random) -> Iterator[str]:
    rank, pid = a_worker(scene, chance)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: status(pid) == psutil.STATUS_STOPPED, PATIENCE_S, f"pid {pid} runs on")
    yield f"worker {rank} (pid {pid}) is stopped"
    if not is_dead(pid):
        raise Failed(f"the stopped worker (pid {pid}) was replaced and left behind")


def kill_driver(scene: Scene, chance: random.Random) -> Iterator[str]:
    run = scene.run
    assert run.process
    pid = run.process.pid
    if run.ended:
        raise NotInjected("the driver had ended already")
    run.kill()
    if run.process.returncode != -signal.SIGKILL:
        raise NotInjected(f"the driver had ended already with {run.process.returncode}")
    run.start()
    yield f"driver (pid {pid}) is gone, the command was typed again"


def ask_driver(number: signal.Signals) -> Fault:
    """The signal, then the same command, as after a notice of preemption."""

    def inject(scene: Scene, chance: random.Random) -> Iterator[str]:
        run = scene.run
        assert run.process
        if run.ended:
            raise NotInjected("the driver had ended already")
        asked = time.monotonic()
        run.process.send_signal(number)
        code = run.finish(120)
        seconds = time.monotonic() - asked
        text = "the same command goes on from here"
        if code or text not in run.tail():
            raise Failed(f"{number.name}: exit {code} after {seconds:.1f} s: {run.tail()}")
        run.start()
        yield f"{number.name}: saved and ended with 0 in {seconds:.1f} s, typed again"

    return inject


def kill_raylet(scene: Scene, chance: random.Random) -> Iterator[str]:
    rank, pid = a_worker(scene, chance)
    node = scene.nodes.node_of(pid)
    raylet = node.raylet()
    raylet.kill()
    until(lambda: is_dead(raylet.pid), PATIENCE_S, f"raylet {raylet.pid} survived -9")
    scene.nodes.forget(node)
    another = scene.nodes.add()
    yield (
        f"raylet (pid {raylet.pid}) of {node.address} is gone with worker {rank}; "
        f"{another.address} joined"
    )


KINDS: dict[str, Kind] = {
    "worker": Kind("kill -9 of a worker", kill_worker),
    "driver": Kind("kill -9 of the driver, command typed again", kill_driver),
    "raylet": Kind("kill -9 of a raylet, another node joins", kill_raylet),
    "stopped": Kind("a worker is stopped (SIGSTOP) and never answers", stop_worker),
    "notice": Kind("SIGTERM to the driver, command typed again", ask_driver(signal.SIGTERM)),
    "ctrl-c": Kind("Ctrl-C, command typed again", ask_driver(signal.SIGINT)),
}
