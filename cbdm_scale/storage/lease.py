"""Who works in a folder now: one command at a time, on a disk, over NFS or in an object store.

The holder rewrites a small file every few seconds. Whoever comes later watches it: a file that
changes belongs to somebody who works, one that stays as it is, to nobody. So no clocks of two
machines are compared, and a command that was killed is waited for, not asked for.
"""

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from types import FrameType

import psutil

from cbdm_scale.storage.folder import Storage

LEASE = "lease.json"
BEAT_S = 3.0
"""Seconds between two signs of life."""

LAPSE_S = 15.0
"""Seconds without one after which a holder that cannot be asked is gone."""

SETTLE_S = 0.3
"""Seconds after which, of two that wrote at once, the last has it."""

LOST = signal.SIGUSR2
"""What interrupts the holder that another has taken over from. Not SIGINT: that asks a run to
stop by a file in its folder, which the other would find."""


@dataclass(frozen=True)
class Holder:
    """Who holds a folder, and how often they have said so."""

    host: str
    pid: int
    started: float
    """When the process was started, by its own clock: a number may be given again."""
    token: str
    beats: int = 0

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"

    @property
    def has_died(self) -> bool:
        """Whether it was a process of this machine that is no more; of others False."""
        if self.host != socket.gethostname():
            return False
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.started) > 1)
        except psutil.NoSuchProcess:
            return True


def wait_until_free(
    folder: Storage, doing: str, other: str = "--name", *, lapse_s: float = LAPSE_S
) -> None:
    """Return once nobody holds a folder; ValueError if somebody does.

    doing: "run NAME is being trained", before "by"; other: the option that chooses another
    folder, or "". A holder that died on this machine is seen at once, elsewhere after
    ``lapse_s``.
    """
    first = holder_of(folder)
    if first is None or first.has_died:
        return
    print(f"{doing} by {first}, or was: waiting for a sign of it", flush=True)
    deadline = time.monotonic() + lapse_s
    while time.monotonic() < deadline:
        time.sleep(lapse_s / 30)
        now = holder_of(folder)
        if now is None or now.has_died:
            return
        if now != first:
            choice = f", or choose another {other}" if other else ""
            raise ValueError(
                f"{doing} by {now}, which has just been seen. Wait for its end, or stop it "
                f"there with Ctrl-C{choice}."
            )


@contextmanager
def lease(
    folder: Storage,
    doing: str,
    other: str = "--name",
    *,
    beat_s: float = BEAT_S,
    lapse_s: float = LAPSE_S,
) -> Iterator[None]:
    """Hold a folder while the body works in it; ValueError if somebody else does.

    doing, other: as in ``wait_until_free``.

    Where another takes it over (as this machine slept, say), a body in the main thread is
    interrupted at once, and a ValueError says who has it.
    """
    wait_until_free(folder, doing, other, lapse_s=lapse_s)
    pid = os.getpid()
    began = psutil.Process(pid).create_time()
    mine = Holder(socket.gethostname(), pid, began, uuid.uuid4().hex)
    folder.write_json(LEASE, asdict(mine))
    time.sleep(min(SETTLE_S, beat_s / 10))
    beat = _Beat(folder, mine, beat_s)
    beat.check()
    beat.refuse_if_lost(doing)
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(LOST, _interrupt) if is_main else None
    beat.start()
    try:
        yield
    except KeyboardInterrupt:
        beat.refuse_if_lost(doing)
        raise
    finally:
        beat.stop()
        if is_main:
            signal.signal(LOST, before)
    beat.refuse_if_lost(doing)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Beat:
    """The thread that says that the holder lives."""

    def __init__(self, folder: Storage, mine: Holder, every_s: float):
        self.folder, self.mine, self.every_s = folder, mine, every_s
        self.taken_by: Holder | None = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True, name="lease")
        self.start: Callable[[], None] = self.thread.start

    def check(self) -> None:
        """Note who else has taken the folder."""
        now = holder_of(self.folder)
        if now and now.token != self.mine.token:
            self.taken_by = now

    def run(self) -> None:
        """Write until told to stop, or until another holds the folder."""
        while not self.taken_by and not self.done.wait(self.every_s):
            try:
                self.check()
                if not self.taken_by:
                    self.mine = replace(self.mine, beats=self.mine.beats + 1)
                    self.folder.write_json(LEASE, asdict(self.mine))
            except Exception:  # a store that is away for a while; each raises its own kinds
                continue
        if self.taken_by and not self.done.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, LOST)

    def stop(self) -> None:
        """Give the folder back, if it is ours."""
        self.done.set()
        if self.thread.ident:
            self.thread.join()
        with suppress(Exception):  # a store that is away: what was done stays done
            if not self.taken_by:
                self.check()
            if not self.taken_by:
                self.folder.remove(LEASE)

    def refuse_if_lost(self, doing: str) -> None:
        """ValueError if another holds the folder."""
        if self.taken_by:
            raise ValueError(
                f"{doing} by {self.taken_by}, which has taken it over: nothing had been heard "
                f"of {self.mine} for a while. Leave it to that one, or stop it there."
            )


def living_holders(
    folders: Sequence[Storage], lapse_s: float = LAPSE_S
) -> dict[Storage, Holder]:
    """Which of some folders are held by somebody who gives signs of life, and by whom.

    Those of other machines are all watched at once, for ``lapse_s`` at most.
    """
    first = {folder: holder for folder in folders if (holder := holder_of(folder))}
    here = socket.gethostname()
    found = {f: h for f, h in first.items() if h.host == here and not h.has_died}
    waiting = {f: h for f, h in first.items() if h.host != here}
    if waiting:
        print(f"waiting for a sign of {len(waiting)} on other machines", flush=True)
    deadline = time.monotonic() + lapse_s
    while waiting and time.monotonic() < deadline:
        time.sleep(lapse_s / 30)
        for folder, holder in list(waiting.items()):
            if (now := holder_of(folder)) != holder:
                del waiting[folder]
                found |= {folder: now} if now else {}
    return found


def holder_of(folder: Storage) -> Holder | None:
    """Who holds a folder; None if nobody does, or nobody can tell."""
    try:
        found: Holder = folder.read_json(LEASE, Holder)
    except (FileNotFoundError, ValueError):
        return None
    return found
