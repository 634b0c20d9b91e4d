"""All faults: each a generator that injects it, proves it, and yields the proof.

What comes after the ``yield`` is done once the run has recovered: it checks what a table
cannot show, and puts back what was taken away. A fault that could not be proven raises
NotInjected, and is never counted.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.backends import num_spoilt, set_rules
from benchmarks.faults.observed import ObservedRun
from benchmarks.hosts import PORT, kill_all, processes, start_mlflow

PATIENCE_S = 15.0
"""Seconds in which a signal has to show."""
SHORT_S = 5.0
NOTICE_S = 20.0
ANNOUNCED = "preemption: the node of worker"
BAD_S = 10.0
"""Seconds for which a store stays bad after its first bad answer."""
AWAY_S = 150.0
ALL = ("GET", "HEAD", "PUT", "POST", "DELETE")
WRITES = ("PUT", "POST")
PART = "/runs/"


class NotInjected(Exception):
    """The fault did not happen, so nothing can be said about it."""


class Failed(Exception):
    """The run did not take the fault as it should have."""


Injection = Generator[str, None, None]
Fault = Callable[[ObservedRun, random.Random], Injection]


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


def about(pid: int) -> dict[str, Any]:
    """Name, status and words of a process; one that is gone is dead."""
    try:
        return dict(psutil.Process(pid).as_dict(["name", "status", "cmdline"], ad_value=()))
    except psutil.NoSuchProcess:
        return {"name": "", "status": psutil.STATUS_DEAD, "cmdline": ()}


def is_dead(pid: int) -> bool:
    return about(pid)["status"] in (psutil.STATUS_DEAD, psutil.STATUS_ZOMBIE)


def kill(pids: Sequence[int]) -> None:
    """-9, until they are gone."""
    kill_all(pids)
    until(lambda: all(map(is_dead, pids)), PATIENCE_S, f"{pids} survived -9")


def a_worker(run: ObservedRun, chance: random.Random) -> tuple[int, int]:
    """(rank, pid) of one that is alive."""
    rank = chance.randrange(len(run.pids))
    pid = run.pids[rank]
    if is_dead(pid):
        raise NotInjected(f"worker {rank} (pid {pid}) was dead already")
    return rank, pid


def a_host(run: ObservedRun, chance: random.Random) -> tuple[int, int]:
    """(rank of a worker that is alive, its host)."""
    rank, pid = a_worker(run, chance)
    return rank, next(h for h in range(run.hosts.number) if pid in processes(h))


# ----------------------------------------------------------------------------
# Single processes: a worker, the driver, and the requests to stop.


def kill_worker(run: ObservedRun, chance: random.Random) -> Injection:
    rank, pid = a_worker(run, chance)
    kill([pid])
    yield f"worker {rank} (pid {pid}) is gone"


def stop_worker(run: ObservedRun, chance: random.Random) -> Injection:
    rank, pid = a_worker(run, chance)
    os.kill(pid, signal.SIGSTOP)
    until(
        lambda: about(pid)["status"] == psutil.STATUS_STOPPED, PATIENCE_S, f"pid {pid} runs on"
    )
    yield f"worker {rank} (pid {pid}) is stopped"
    if not is_dead(pid):
        raise Failed(f"the stopped worker (pid {pid}) was replaced and left behind")


def kill_driver(run: ObservedRun, chance: random.Random) -> Injection:
    pid = driver_of(run)
    run.kill()
    run.start()
    yield f"driver (pid {pid}) is gone, the command was typed again"


def driver_of(run: ObservedRun) -> int:
    assert run.process
    if run.ended:
        raise NotInjected("the driver had ended already")
    return run.process.pid


def ask_driver(number: signal.Signals) -> Fault:
    """The signal, then the same command, as after a notice of preemption."""

    def inject(run: ObservedRun, chance: random.Random) -> Injection:
        pid = driver_of(run)
        asked = time.monotonic()
        os.kill(pid, number)
        code = run.finish(120)
        seconds = time.monotonic() - asked
        text = "the same command goes on from here"
        if code != 128 + number or text not in run.tail():
            raise Failed(f"{number.name}: exit {code} after {seconds:.1f} s: {run.tail()}")
        run.start()
        yield f"{number.name}: saved and ended with {code} in {seconds:.1f} s, typed again"

    return inject


def corrupt(run: ObservedRun, chance: random.Random) -> Injection:
    """The newest checkpoint has a flipped bit when the command is typed again."""
    pid = driver_of(run)
    run.kill()
    newest = run.newest_checkpoint()
    path = newest / chance.choice(["model.safetensors", "optimizer.safetensors"])
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data) // 2, len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))
    run.start()
    yield f"driver (pid {pid}) is gone, a bit of {newest.name}/{path.name} flipped, typed again"
    if int(newest.name) in run.since("resumed", run.started):
        raise Failed(f"went on from the checkpoint with the flipped bit ({newest.name})")


# ----------------------------------------------------------------------------
# Whole hosts: their Ray, their power, their cable.


def raylets(host: int) -> list[int]:
    return [pid for pid in processes(host) if about(pid)["name"] == "raylet"]


def kill_raylet(run: ObservedRun, chance: random.Random) -> Injection:
    rank, host = a_host(run, chance)
    gone = raylets(host)
    kill(gone)
    with afterwards_whole(run, host):
        yield f"raylet (pid {gone}) of host {host} with worker {rank} is gone"


def kill_host(run: ObservedRun, chance: random.Random) -> Injection:
    rank, host = a_host(run, chance)
    gone = processes(host)
    kill(gone)
    with afterwards_whole(run, host):
        yield f"host {host} with worker {rank}: {len(gone)} processes are gone"


def cut_for_a_while(run: ObservedRun, chance: random.Random) -> Injection:
    rank, host = a_host(run, chance)
    run.hosts.cut_off(host)
    try:
        time.sleep(SHORT_S)
    finally:
        run.hosts.join_again(host)
    yield f"host {host} with worker {rank} was cut off for {SHORT_S:g} s"
    if not raylets(host):  # Ray had given it up
        with afterwards_whole(run, host):
            pass


def cut_for_ever(run: ObservedRun, chance: random.Random) -> Injection:
    rank, host = a_host(run, chance)
    with afterwards_whole(run, host):
        run.hosts.cut_off(host)
        yield f"host {host} with worker {rank} is cut off"


def announce(run: ObservedRun, chance: random.Random) -> Injection:
    """As a spot machine goes: Ray is told to drain its node, and then it is switched off."""
    rank, host = a_host(run, chance)
    before = len(run.said(ANNOUNCED))
    head, ray = f"{run.hosts.address(0)}:{PORT}", Path(sys.executable).with_name("ray")
    node = run.hosts.ask(0, node_at, head, run.hosts.address(host))
    words = [str(ray), "drain-node", "--address", head, "--node-id", node]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    with afterwards_whole(run, host):
        run.hosts.run(0, [*words, "--deadline-remaining-seconds", f"{NOTICE_S:g}"])
        gone = time.monotonic() + NOTICE_S
        until(lambda: len(run.said(ANNOUNCED)) > before, PATIENCE_S, "nobody was told")
        time.sleep(max(0.0, gone - time.monotonic()))
        kill(processes(host))
        yield f"host {host} with worker {rank} was announced {NOTICE_S:g} s before it went"


def node_at(head: str, address: str) -> str:
    """Ray's identity of the node at an address."""
    import ray

    ray.init(address=head, log_to_driver=False)
    alive = {
        node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]
    }
    ray.shutdown()
    return str(alive[address])


@contextmanager
def afterwards_whole(run: ObservedRun, host: int) -> Iterator[None]:
    """In the end the host is new, ready for the next fault, whatever came of this one."""
    try:
        yield
    finally:
        run.hosts.join_again(host)
        run.hosts.kill(host)
        run.hosts.start_ray([host])


# ----------------------------------------------------------------------------
# What a run writes to: its disk, its bucket, its tracker.


def bucket(answer: str, methods: tuple[str, ...]) -> Fault:
    def inject(run: ObservedRun, chance: random.Random) -> Injection:
        set_rules(run.folder, {"part": PART, "kind": answer, "methods": methods})
        try:
            until(lambda: num_spoilt(run.folder) > 0, 120, f"nothing was asked of {PART}")
            time.sleep(BAD_S)
            count = num_spoilt(run.folder)
        finally:
            set_rules(run.folder)
        yield f"{count} answers: {answer}"

    return inject


def fill_disk(run: ObservedRun, chance: random.Random) -> Injection:
    """Less room than a checkpoint needs; after a while there is room again."""
    disk = os.statvfs(run.storage)
    room = disk.f_bavail * disk.f_frsize
    sizes = [path.stat().st_size for path in run.newest_checkpoint().iterdir()]
    leave = chance.randrange(sum(sizes))
    filler = os.path.join(run.storage, "filler")
    said = len(run.said("No space left"))
    try:
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, room - leave)
        until(lambda: len(run.said("No space left")) > said, 120, "the disk sufficed")
        time.sleep(BAD_S / 2)
    finally:
        os.remove(filler)
    yield f"the disk had {leave:,} bytes, and was full"


def tracker_away(run: ObservedRun, chance: random.Random) -> Injection:
    words = {pid: " ".join(about(pid)["cmdline"]) for pid in processes(0)}
    gone = [pid for pid, said in words.items() if "mlflow" in said and "cbdm_scale" not in said]
    kill(gone)
    time.sleep(AWAY_S)
    start_mlflow(run.hosts, run.folder)
    yield f"MLflow ({len(gone)} processes) was away for {AWAY_S:g} s"


KINDS: dict[str, Kind] = {
    "worker": Kind("kill -9 of a worker", kill_worker),
    "driver": Kind("kill -9 of the driver, command typed again", kill_driver),
    "stopped": Kind("a worker is stopped (SIGSTOP) and never answers", stop_worker),
    "notice": Kind("SIGTERM to the driver, command typed again", ask_driver(signal.SIGTERM)),
    "ctrl-c": Kind("Ctrl-C, command typed again", ask_driver(signal.SIGINT)),
    "corrupt": Kind("kill -9 of the driver, newest checkpoint damaged", corrupt),
    "raylet": Kind("kill -9 of a worker's raylet", kill_raylet),
    "host": Kind("kill -9 of every process of a worker's host", kill_host),
    "cut": Kind("a worker's host is cut off for 5 s", cut_for_a_while, restarts=False),
    "spot": Kind("a worker's host goes 20 s after a notice", announce),
    "lost": Kind("a worker's host is cut off for ever", cut_for_ever),
    "slow": Kind("bucket slow: +0.3 s an answer, 10 s", bucket("slow", ALL), False, "bucket"),
    "failing": Kind("bucket answers 503, 10 s", bucket("503", ALL), False, "bucket"),
    "bucketfull": Kind("bucket full (507), 10 s", bucket("507", WRITES), False, "bucket"),
    "diskfull": Kind("disk full in the middle of a checkpoint", fill_disk, False, "disk"),
    "mlflow": Kind(f"MLflow away for {AWAY_S:g} s", tracker_away, False, "tracker"),
}
