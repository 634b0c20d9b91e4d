"""What the training loop calls: it writes to the spool, and a thread brings that to MLflow."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.client import clean_name, hide_password, import_mlflow
from cbdm_scale.tracking.errors import explain
from cbdm_scale.tracking.sender import Sender
from cbdm_scale.tracking.spool import Spool

POLL_LOCAL_S, POLL_REMOTE_S = 1.0, 10.0  # between two looks at the spool
LONGEST_PAUSE_S = 10.0  # between two attempts while the server is away
LAST_PAUSE_S = 0.3  # between two attempts once ``close`` waits for them
log = logging.getLogger(__name__)


class Tracker:
    """Receives numbers and keeps none: of the other ranks, and of a run without MLflow.

    ``step``: images that all ranks saw.
    """

    why = ""
    """Why records wait; "" while none do."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics by name."""

    def image(self, step: int, name: str, png: bytes) -> None:
        """Log a PNG; those of one name are one series."""

    def model(self, step: int, checkpoint: str, aliases: Sequence[str]) -> None:
        """Register the checkpoint folder at this URL and point the aliases at it."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""

    def flush(self) -> None:
        """Make all of the above durable: call it before a checkpoint is published."""

    def close(self, timeout_s: float) -> int:
        """Send what is left for at most this long; the number of records still unsent."""
        return 0


class MlflowTracker(Tracker):
    """Logs to one MLflow run through the spool in the run folder.

    No method but ``close`` waits for the tracking server: while it is away records gather in
    the spool, also over restarts of the run. What a restarted run logs again is dropped.
    """

    def __init__(
        self,
        run: Storage,
        tracking_uri: str,
        run_id: str,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """``say`` gets a line where the server does not answer; None: a warning in the log."""
        import_mlflow()  # here and not in the thread, which would share the import lock
        self._uri, self._say = tracking_uri, say or log.warning
        self.spool = Spool(run.child(RunDir.TRACKING))
        self._sender = Sender(run, tracking_uri, run_id)
        self._poll_s = POLL_LOCAL_S if run.is_local else POLL_REMOTE_S
        self._deadline: float | None = None  # set by close
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._send, name="tracking", daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Into the spool; a name that it has at this step or a later one is dropped."""
        self.spool.add_scalars(step, {clean_name(k): v for k, v in values.items()})

    def image(self, step: int, name: str, png: bytes) -> None:
        """Into the spool; dropped likewise."""
        self.spool.add_image(step, clean_name(name), png)

    def model(self, step: int, checkpoint: str, aliases: Sequence[str]) -> None:
        """Into the spool; aliases that it has pointed at a later checkpoint stay there."""
        self.spool.add_model(step, checkpoint, list(aliases))

    def tags(self, values: Mapping[str, str]) -> None:
        """Into the spool."""
        self.spool.add_tags({clean_name(k): v for k, v in values.items()})

    def flush(self) -> None:
        """Make the spool durable; waits for the disk or the store, not for the server."""
        self.spool.sync()

    def close(self, timeout_s: float) -> int:
        """End the thread; what it could not send in time stays in the spool, with a warning."""
        self.spool.sync()
        self._deadline = time.monotonic() + timeout_s
        self._wake.set()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self.spool.close()
        if self.spool.unsent:
            self.why = self.why or f"{timeout_s:g} s were too short for them."
            log.warning(
                "%d records for %s wait in %s: the same command sends them.",
                self.spool.unsent,
                hide_password(self._uri),
                self.spool.folder.url,
            )
        return self.spool.unsent

    def _send(self) -> None:
        """The thread: send, look again, and be patient while the server is away."""
        failures = 0
        while True:
            try:
                while records := self.spool.next_unsent():
                    self._sender.send(records, self.spool.mark_sent)
                    if self._is_over():
                        return
                if failures:
                    self._say(f"{hide_password(self._uri)} answers again, nothing is lost.")
                failures, self.why = 0, ""
            except Exception as error:  # whatever it is, training must go on
                before, self.why = self.why, explain(self._uri, error)
                failures += 1
                if not before:
                    self._say(f"{self.why} Training goes on, its numbers wait on disk.")
            if self._is_over() or (self._deadline and not self.spool.unsent):
                return
            pause = min(2.0 ** (failures - 1), LONGEST_PAUSE_S) if failures else self._poll_s
            if self._deadline is None:
                self._wake.wait(pause)
            else:
                time.sleep(LAST_PAUSE_S)

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline
