"""The request to save and stop: a signal to the driver, a file "stop" that rank 0 looks for."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cbdm_scale.storage.run_dir import RunDir

if TYPE_CHECKING:
    from cbdm_scale.storage.folder import Storage


@contextmanager
def stop_on_signal(run: "Storage") -> Iterator[None]:
    """Turn the first SIGTERM or SIGINT into a request to save and stop."""
    run.remove(RunDir.STOP)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def handler(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        run.write_bytes(RunDir.STOP, f"{signal.Signals(number).name}\n".encode())
        print("stopping: the workers save a checkpoint first (once more: at once)", flush=True)

    signals = (signal.SIGTERM, signal.SIGINT)  # ray.init has set its own before
    before = [signal.signal(s, handler) for s in signals]
    try:
        yield
    finally:
        for s, old in zip(signals, before, strict=True):
            signal.signal(s, old)
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
