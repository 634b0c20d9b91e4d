"""A thread that writes one thing at a time, while training goes on."""

import threading
import time
from collections.abc import Callable


class Writer:
    """What a job raises, ``wait`` and the next ``start`` raise on the caller's thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """That the last job took."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Begin a job, after the one before has ended."""
        self.wait()

        def work() -> None:
            began = time.monotonic()
            try:
                job()
            except BaseException as error:
                self._error = error
            self.seconds = time.monotonic() - began

        self._thread = threading.Thread(target=work, daemon=True, name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise what the job raised, if it has ended; never waits."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until the job has ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self, seconds: float) -> None:
        """Give the job so long to end. For ways out that have an error of their own."""
        if self._thread is not None:
            self._thread.join(seconds)
