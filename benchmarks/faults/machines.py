"""Faults of whole hosts: their Ray, their power, their cable."""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.faults.kinds import PATIENCE_S, Injection, Kind, Scene, is_dead, until
from benchmarks.hosts import PORT, processes

SHORT_S = 5.0
NOTICE_S = 20.0
ANNOUNCED = "preemption: the node of worker"
NODE = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
nodes = [node for node in ray.nodes() if node["Alive"]]
print(*[node["NodeID"] for node in nodes if node["NodeManagerAddress"] == sys.argv[2]])
"""
"""Prints the identity of the node at an address."""


def kill_raylet(scene: Scene, chance: random.Random) -> Injection:
    rank, host = scene.a_host(chance)
    [raylet] = [p for p in processes(host) if name(p) == "raylet"]
    os.kill(raylet, signal.SIGKILL)
    until(lambda: is_dead(raylet), PATIENCE_S, f"raylet {raylet} survived -9")
    with afterwards_whole(scene, host):
        yield f"raylet (pid {raylet}) of host {host} with worker {rank} is gone"


def kill_host(scene: Scene, chance: random.Random) -> Injection:
    rank, host = scene.a_host(chance)
    gone = scene.hosts.kill(host)
    until(lambda: all(is_dead(p) for p in gone), PATIENCE_S, f"{gone} survived -9")
    with afterwards_whole(scene, host):
        yield f"host {host} with worker {rank}: {len(gone)} processes are gone"


def cut_for_a_while(scene: Scene, chance: random.Random) -> Injection:
    rank, host = scene.a_host(chance)
    scene.hosts.cut_off(host)
    try:
        time.sleep(SHORT_S)
    finally:
        scene.hosts.join_again(host)
    yield f"host {host} with worker {rank} was cut off for {SHORT_S:g} s"
    if "raylet" not in map(name, processes(host)):  # Ray had given it up
        with afterwards_whole(scene, host):
            pass


def cut_for_ever(scene: Scene, chance: random.Random) -> Injection:
    rank, host = scene.a_host(chance)
    with afterwards_whole(scene, host):
        scene.hosts.cut_off(host)
        yield f"host {host} with worker {rank} is cut off"


def announce(scene: Scene, chance: random.Random) -> Injection:
    """As a spot machine goes: Ray is told to drain its node, and then it is switched off."""
    rank, host = scene.a_host(chance)
    before = len(scene.run.said(ANNOUNCED))
    python, head = sys.executable, f"{scene.hosts.address(0)}:{PORT}"
    node = scene.hosts.run(0, [python, "-c", NODE, head, scene.hosts.address(host)]).split()[-1]
    ray = str(Path(python).with_name("ray"))
    words = [ray, "drain-node", "--address", head, "--node-id", node]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    with afterwards_whole(scene, host):
        scene.hosts.run(0, [*words, "--deadline-remaining-seconds", f"{NOTICE_S:g}"])
        gone = time.monotonic() + NOTICE_S
        until(lambda: len(scene.run.said(ANNOUNCED)) > before, PATIENCE_S, "nobody was told")
        time.sleep(max(0.0, gone - time.monotonic()))
        scene.hosts.kill(host)
        yield f"host {host} with worker {rank} was announced {NOTICE_S:g} s before it went"


@contextmanager
def afterwards_whole(scene: Scene, host: int) -> Iterator[None]:
    """In the end the host is new, ready for the next fault, whatever came of this one."""
    try:
        yield
    finally:
        scene.hosts.join_again(host)
        scene.hosts.kill(host)
        scene.hosts.start_ray([host])


def name(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.NoSuchProcess:
        return ""


MACHINES: dict[str, Kind] = {
    "raylet": Kind("kill -9 of a worker's raylet", kill_raylet),
    "host": Kind("kill -9 of every process of a worker's host", kill_host),
    "cut": Kind("a worker's host is cut off for 5 s", cut_for_a_while, restarts=False),
    "spot": Kind("a worker's host goes 20 s after a notice", announce),
    "lost": Kind("a worker's host is cut off for ever", cut_for_ever),
}
