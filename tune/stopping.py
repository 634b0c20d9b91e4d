"""SIGTERM, Ctrl-C or SIGHUP to a search: its running trials save first, as a run does.

The signal only notes its number. The driver then leaves a file "stop" in the folder of the
trials, which the process of each sees (trainable.py), begins no other trial, and waits for
those that run, for ``SAVING_S`` seconds at most.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from signal import Signals

from cbdm_scale.cli.signals import Interrupted, interrupt, on_signal
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import shorten
from tune.search import Search

SAVING_S = 600.0
"""Seconds that the trials get to save: one that evaluates comes to the end of that first."""


class StopRequest:
    """Whether a search is asked to stop, and what its trials have saved since."""

    def __init__(self, search: Search):
        self.search = search
        self.trials = Storage(search.template.base.cluster.storage)
        self.signal = 0
        """Number of the signal that came; 0 before."""
        self.is_over = False
        """Whether it was asked for, and no trial is waited for any more."""
        self.running: list[str] = []
        """Trials that were running when it came."""
        self.saved: list[str] = []
        """Trials that have saved a checkpoint since, and ended."""
        self._deadline = 0.0

    def look(self, running: Sequence[str]) -> None:
        """Now and then, with the trials that are running: tell them, see whether it is over."""
        if not self.signal or self.is_over:
            return
        if not self._deadline:
            self._deadline, self.running = time.monotonic() + SAVING_S, list(running)
            self.trials.write_bytes(RunDir.STOP, f"{Signals(self.signal).name}\n".encode())
            if running:
                self.search.progress.log(
                    "stopping: the trials save a checkpoint first (once more: at once)"
                )
        self.is_over = not running or time.monotonic() > self._deadline

    def add_saved(self, trial: str, images: int) -> None:
        """A trial has saved a checkpoint after so many images, and ended."""
        self.saved.append(trial)
        self.search.progress.log(f"{trial} saved a checkpoint at {images:,} images")

    @property
    def summary(self) -> str:
        """How many of the trials that were running have saved."""
        text = f"{len(self.saved)} of {len(self.running)} running trials saved a checkpoint"
        left = [trial for trial in self.running if trial not in self.saved]
        rest = f"; {shorten(left)} will go on from the newest that is there" if left else ""
        return text + rest


@contextmanager
def stop_on_signal(search: Search) -> Iterator[StopRequest]:
    """Turn the first SIGTERM, SIGINT or SIGHUP into a request that the body's trials save.

    ``Interrupted`` then comes at the end of the body, and with a second signal at once.
    """
    request = StopRequest(search)
    request.trials.remove(RunDir.STOP)

    def answer(number: int, again: bool) -> None:
        if again:
            interrupt(number)
        request.signal = number

    try:
        with on_signal(answer):
            yield request
    finally:
        request.trials.remove(RunDir.STOP)
    if request.signal:
        if request.running:
            search.progress.log(request.summary)
        raise Interrupted(request.signal)
