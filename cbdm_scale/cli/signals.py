"""SIGTERM, SIGINT and SIGHUP: what schedulers, keyboards and closing terminals say.

A command that was asked to stop ends with 128 + the signal's number, as a shell says it of a
process that a signal ended: for a scheduler it is not done, and is started again.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

AGAIN_S = 1.0
"""Seconds in which a signal that comes again is the same request: `timeout` sends it to the
process and then to its group, and so does a terminal that closes."""


class Interrupted(KeyboardInterrupt):
    """What the first signal raises in the main thread."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_status(number: int) -> int:
    """Of a command that a signal ended; 0 for 0, where none came."""
    return 128 + number if number else 0


@contextmanager
def on_signal(answer: Callable[[int, bool], None]) -> Iterator[None]:
    """While inside, ``answer(number, again)`` is called in the main thread for each request.

    Signals that the process was told to ignore (by nohup, or as a script's background job)
    stay ignored. In other threads than the main one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[float] = []

    def handler(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if heard and now - heard[-1] < AGAIN_S:
            return
        heard.append(now)
        for name in ("stdout", "stderr"):
            if not isinstance(getattr(sys, name), _LastWords):
                setattr(sys, name, _LastWords(getattr(sys, name)))
        answer(number, len(heard) > 1)

    wanted = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    before = {n: signal.getsignal(n) for n in wanted}
    before = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def interrupt(number: int, again: bool = False) -> None:
    """The usual answer: raise ``Interrupted``."""
    raise Interrupted(number)


class _LastWords:
    """Standard output once a signal came: its terminal, or the `tee` behind it, may be gone,
    and a line that nobody reads must not keep a run from being saved.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._or_nowhere():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._or_nowhere():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _or_nowhere(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
