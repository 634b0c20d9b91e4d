"""The request to save and stop: a signal to the driver, a file "stop" that rank 0 looks for."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cbdm_scale.cli.signals import interrupt, on_signal
from cbdm_scale.storage.run_dir import RunDir

if TYPE_CHECKING:
    from cbdm_scale.storage.folder import Storage


@contextmanager
def stop_on_signal(run: "Storage", has_begun: Callable[[], bool]) -> Iterator[list[int]]:
    """Turn the first SIGTERM, SIGINT or SIGHUP into a request to save and stop.

    What is given holds the signal's number from then on. A second one ends at once, and so does
    the first while nothing ``has_begun``, as there is nothing to save.
    """
    run.remove(RunDir.STOP)
    asked: list[int] = []

    def answer(number: int, again: bool) -> None:
        if again or not has_begun():
            interrupt(number)
        asked.append(number)
        run.write_bytes(RunDir.STOP, f"{signal.Signals(number).name}\n".encode())
        print("stopping: the workers save a checkpoint first (once more: at once)", flush=True)

    try:
        with on_signal(answer):
            yield asked
    finally:
        run.remove(RunDir.STOP)


class StopFile:
    """Looks once a second for a file "stop" in the run folder, off the training thread.

    ``is_set()``: whether it was there.
    """

    def __init__(self, folder: "Storage"):
        self._found, self._closed = threading.Event(), threading.Event()

        def watch() -> None:
            while not self._closed.wait(1.0):
                if folder.exists(RunDir.STOP):
                    self._found.set()
                    return

        self._thread = threading.Thread(target=watch, daemon=True, name="stop file")
        self._thread.start()
        self.is_set = self._found.is_set

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join(5)
