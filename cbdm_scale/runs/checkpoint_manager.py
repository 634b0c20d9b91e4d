"""The checkpoints of a run: written beside training, told when whole, dropped when old.

Training stands still for a copy of the state, and for what is left of the checkpoint before if
that is still being written. Numbers of MLflow are durable before the copy is made, so a
checkpoint never knows of steps that the tracker does not.
"""

import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from cbdm_scale.cluster.options import ReportCheckpoint
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.tracker import Tracker
from cbdm_scale.training.checkpoint import (
    TrainState,
    drop_old_checkpoints,
    take_snapshot,
    write_checkpoint,
)
from cbdm_scale.training.distributed import World

LAST_WRITE_S = 60.0
"""Seconds that a checkpoint under way gets to become whole when a worker has failed."""


class Writer:
    """A thread that writes one thing at a time, while training goes on.

    What a job raises, ``wait`` and the next ``start`` raise on the caller's thread.
    """

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


class CheckpointManager:
    """Every rank calls ``save`` and ``wait``; rank 0 writes."""

    def __init__(
        self,
        folder: Storage,
        world: World,
        tracker: Tracker,
        report_checkpoint: ReportCheckpoint,
        about: dict[str, Any],
        keep: int,
        needed: Callable[[], Collection[int]],
    ):
        self.folder, self.world, self.tracker = folder, world, tracker
        self.report_checkpoint, self.about, self.keep, self.needed = (
            report_checkpoint,
            about,
            keep,
            needed,
        )
        self.saved = self.whole = -1
        """Images of the newest checkpoint, and of the newest that is known to be whole."""
        self.writer = Writer()

    def resume_from(self, num_seen: int) -> None:
        """Say which checkpoint the run goes on from."""
        self.saved = self.whole = num_seen

    @property
    def newest_path(self) -> str:
        """The newest checkpoint's folder or URL, whole or under way."""
        return self.folder.path(RunDir.checkpoint(self.saved))

    def save(self, state: TrainState) -> None:
        """Begin to write the checkpoint; the one before is whole when this returns."""
        num_seen = state.progress.num_seen
        if num_seen == self.saved:
            return
        self.wait()
        if self.world.rank == 0:
            self.tracker.flush()
            snapshot = take_snapshot(state)
            self.writer.start(partial(write_checkpoint, self.folder, snapshot, self.about))
        self.saved = num_seen

    def wait(self) -> None:
        """Wait until the checkpoint under way is whole, tell Ray, drop old ones."""
        if self.whole == self.saved:
            return
        with self.world.monitored_barrier():  # nobody goes on before it is whole
            if self.world.rank == 0:
                self.writer.wait()
        self.whole = self.saved
        self.report_checkpoint(self.newest_path, {"images": float(self.saved)})
        self.prune()

    def check(self) -> float:
        """Seconds that the last checkpoint took; raises what one that has ended has raised."""
        self.writer.check()
        return self.writer.seconds

    def prune(self) -> None:
        """Drop the checkpoints that are neither new nor needed."""
        if self.world.rank == 0:
            drop_old_checkpoints(self.folder, self.keep, self.needed())

    def close(self) -> None:
        """On every way out: a checkpoint under way still becomes whole."""
        self.writer.close(LAST_WRITE_S)
