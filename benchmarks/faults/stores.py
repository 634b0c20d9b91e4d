"""Faults of what a run writes to: its disk, its bucket, its tracker."""

import os
import random
import signal
import time

from benchmarks.faults.backends import num_spoilt, set_rules
from benchmarks.faults.kinds import Fault, Injection, Kind, Scene, until
from benchmarks.hosts import processes
from benchmarks.on_hosts import start_mlflow

BAD_S = 10.0
"""Seconds for which a store stays bad after its first bad answer."""
AWAY_S = 150.0
ALL = ("GET", "HEAD", "PUT", "POST", "DELETE")
WRITES = ("PUT", "POST")
PART = "/runs/"


def bucket(answer: str, methods: tuple[str, ...]) -> Fault:
    def inject(scene: Scene, chance: random.Random) -> Injection:
        set_rules(scene.folder, {"part": PART, "kind": answer, "methods": methods})
        try:
            until(lambda: num_spoilt(scene.folder) > 0, 120, f"nothing was asked of {PART}")
            time.sleep(BAD_S)
            count = num_spoilt(scene.folder)
        finally:
            set_rules(scene.folder)
        yield f"{count} answers: {answer}"

    return inject


def fill_disk(scene: Scene, chance: random.Random) -> Injection:
    """Less room than a checkpoint needs; after a while there is room again."""
    disk = os.statvfs(scene.run.storage)
    room = disk.f_bavail * disk.f_frsize
    leave = chance.randrange(scene.run.checkpoint_bytes())
    filler = os.path.join(scene.run.storage, "filler")
    said = len(scene.run.said("No space left"))
    try:
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, room - leave)
        until(lambda: len(scene.run.said("No space left")) > said, 120, "the disk sufficed")
        time.sleep(BAD_S / 2)
    finally:
        os.remove(filler)
    yield f"the disk had {leave:,} bytes, and was full"


def tracker_away(scene: Scene, chance: random.Random) -> Injection:
    gone = [p for p in processes(0) if is_mlflow(p)]
    for pid in gone:
        os.kill(pid, signal.SIGKILL)
    time.sleep(AWAY_S)
    start_mlflow(scene.hosts, scene.folder)
    yield f"MLflow ({len(gone)} processes) was away for {AWAY_S:g} s"


def is_mlflow(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read()
    except OSError:
        return False
    return b"mlflow" in words and b"cbdm_scale" not in words


STORES: dict[str, Kind] = {
    "slow": Kind("bucket slow: +0.3 s an answer, 10 s", bucket("slow", ALL), False, "bucket"),
    "failing": Kind("bucket answers 503, 10 s", bucket("503", ALL), False, "bucket"),
    "bucketfull": Kind("bucket full (507), 10 s", bucket("507", WRITES), False, "bucket"),
    "diskfull": Kind("disk full in the middle of a checkpoint", fill_disk, False, "disk"),
    "mlflow": Kind(f"MLflow away for {AWAY_S:g} s", tracker_away, False, "tracker"),
}
