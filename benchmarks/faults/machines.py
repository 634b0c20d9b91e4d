"""Faults of whole hosts: their Ray, their power, their cable."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from benchmarks.faults.kinds import PATIENCE_S, Injection, Kind, Scene, is_dead, until
from benchmarks.hosts import processes

SHORT_S = 5.0


def kill_raylet(scene: Scene, chance: random.Random) -> Injection:
    rank, pid = scene.a_worker(chance)
    host = scene.host_of(pid)
    [raylet] = [p for p in processes(host) if name(p) == "raylet"]
    os.kill(raylet, signal.SIGKILL)
    until(lambda: is_dead(raylet), PATIENCE_S, f"raylet {raylet} survived -9")
    with afterwards_whole(scene, host):
        yield f"raylet (pid {raylet}) of host {host} with worker {rank} is gone"


def kill_host(scene: Scene, chance: random.Random) -> Injection:
    rank, pid = scene.a_worker(chance)
    host = scene.host_of(pid)
    gone = scene.hosts.kill(host)
    until(lambda: all(is_dead(p) for p in gone), PATIENCE_S, f"{gone} survived -9")
    with afterwards_whole(scene, host):
        yield f"host {host} with worker {rank}: {len(gone)} processes are gone"


def cut_for_a_while(scene: Scene, chance: random.Random) -> Injection:
    rank, pid = scene.a_worker(chance)
    host = scene.host_of(pid)
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
    rank, pid = scene.a_worker(chance)
    host = scene.host_of(pid)
    with afterwards_whole(scene, host):
        scene.hosts.cut_off(host)
        yield f"host {host} with worker {rank} is cut off"


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
    "lost": Kind("a worker's host is cut off for ever", cut_for_ever),
}
