"""Faults of single processes: a worker, the driver, and the requests to stop."""

import os
import random
import signal
import time

import psutil

from benchmarks.faults.kinds import (
    PATIENCE_S,
    Failed,
    Fault,
    Injection,
    Kind,
    NotInjected,
    Scene,
    is_dead,
    status,
    until,
)


def kill_worker(scene: Scene, chance: random.Random) -> Injection:
    rank, pid = scene.a_worker(chance)
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_dead(pid), PATIENCE_S, f"pid {pid} survived -9")
    yield f"worker {rank} (pid {pid}) is gone"


def stop_worker(scene: Scene, chance: random.Random) -> Injection:
    rank, pid = scene.a_worker(chance)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: status(pid) == psutil.STATUS_STOPPED, PATIENCE_S, f"pid {pid} runs on")
    yield f"worker {rank} (pid {pid}) is stopped"
    if not is_dead(pid):
        raise Failed(f"the stopped worker (pid {pid}) was replaced and left behind")


def kill_driver(scene: Scene, chance: random.Random) -> Injection:
    pid = driver_of(scene)
    scene.run.kill()
    scene.run.start()
    yield f"driver (pid {pid}) is gone, the command was typed again"


def driver_of(scene: Scene) -> int:
    assert scene.run.process
    if scene.run.ended:
        raise NotInjected("the driver had ended already")
    return scene.run.process.pid


def ask_driver(number: signal.Signals) -> Fault:
    """The signal, then the same command, as after a notice of preemption."""

    def inject(scene: Scene, chance: random.Random) -> Injection:
        run, pid = scene.run, driver_of(scene)
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


def corrupt(scene: Scene, chance: random.Random) -> Injection:
    """The newest checkpoint has a flipped bit when the command is typed again."""
    run, pid = scene.run, driver_of(scene)
    run.kill()
    newest = run.newest_checkpoint()
    path = newest / chance.choice(["model.safetensors", "optimizer.safetensors"])
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data) // 2, len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))
    run.start()
    yield f"driver (pid {pid}) is gone, a bit of {newest.name}/{path.name} flipped, typed again"
    if int(newest.name) in [e.images for e in run.events_of_start() if e.kind == "resumed"]:
        raise Failed(f"went on from the checkpoint with the flipped bit ({newest.name})")


PROCESSES: dict[str, Kind] = {
    "worker": Kind("kill -9 of a worker", kill_worker),
    "driver": Kind("kill -9 of the driver, command typed again", kill_driver),
    "stopped": Kind("a worker is stopped (SIGSTOP) and never answers", stop_worker),
    "notice": Kind("SIGTERM to the driver, command typed again", ask_driver(signal.SIGTERM)),
    "ctrl-c": Kind("Ctrl-C, command typed again", ask_driver(signal.SIGINT)),
    "corrupt": Kind("kill -9 of the driver, newest checkpoint damaged", corrupt),
}
