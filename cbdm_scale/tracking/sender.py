"""Spooled records to MLflow, each so that sending it once more changes nothing.

A crash between sending and remembering it repeats a batch. Metrics carry the time at which they
were recorded, and MLflow's database ignores an exact copy; images and models have names that
follow from the record, so that they replace themselves; tags replace themselves anyway.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.client import batches, hide_password, is_refusal, make_client
from cbdm_scale.tracking.mlflow_internals import (
    IMAGES_FOLDER,
    IMAGES_TAG,
    LONGEST_TAG,
    METRICS_PER_CALL,
    write_image,
)
from cbdm_scale.tracking.models import register
from cbdm_scale.tracking.records import Record

log = logging.getLogger(__name__)


def _parts(records: list[Record]) -> Iterator[list[Record]]:
    """Records that go in one request: some of scalars, or one other; in order."""
    part: list[Record] = []
    for record in records:
        full = sum(len(r["scalars"]) for r in part) >= METRICS_PER_CALL
        if part and (full or "scalars" not in record):
            yield part
            part = []
        if "scalars" in record:
            part.append(record)
        else:
            yield [record]
    if part:
        yield part


class Sender:
    """Lives in the tracker's thread; raises whatever the server or the network raises."""

    def __init__(self, run: Storage, tracking_uri: str, run_id: str) -> None:
        self.run, self.uri, self.run_id = run, tracking_uri, run_id
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The MlflowClient, made when it is first needed."""
        if self._client is None:
            self._client = make_client(self.uri)
        return self._client

    def send(self, records: list[Record], mark: Callable[[list[Record]], None]) -> None:
        """Send in order, calling ``mark`` with every part as soon as it has arrived."""
        for part in _parts(records):
            self._send_part(part)
            mark(part)

    def _send_part(self, part: list[Record]) -> None:
        """One request's records; one that MLflow will never take is named in a warning."""
        try:
            self._log(part)
        except Exception as error:
            if not is_refusal(error) or not self._is_active():
                raise
            if len(part) > 1:
                for record in part:
                    self._send_part([record])
            else:
                log.warning("MLflow refuses %s: %s", part[0], hide_password(str(error)))

    def _is_active(self) -> bool:
        """Refused because of its content, not because the run was deleted meanwhile."""
        return bool(self.client.get_run(self.run_id).info.lifecycle_stage == "active")

    def _log(self, part: list[Record]) -> None:
        match part[0]:
            case {"scalars": _}:
                self._log_scalars(part)
            case {"image": name, "file": file, "step": step, "time": time}:
                self._log_image(name, file, step, time)
            case {"model": checkpoint, "aliases": aliases, "step": step}:
                register(self.client, self.run, self.run_id, step, checkpoint, aliases)
            case {"tags": tags}:
                for key, value in tags.items():
                    self.client.set_tag(self.run_id, key, value[:LONGEST_TAG])

    def _log_scalars(self, part: list[Record]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, float(value), record["time"], record["step"])
            for record in part
            for name, value in record["scalars"].items()
        ]
        for batch in batches(metrics, METRICS_PER_CALL):
            self.client.log_batch(self.run_id, batch)

    def _log_image(self, name: str, file: str, step: int, time_ms: int) -> None:
        spool = self.run.child(RunDir.TRACKING)
        if not spool.exists(file):
            log.warning("%s is gone: it is left out", spool.path(file))
            return
        png = spool.read_bytes(file)
        with tempfile.TemporaryDirectory() as folder:
            write_image(png, name, step, time_ms, self.run_id, Path(folder))
            self.client.log_artifacts(self.run_id, folder, IMAGES_FOLDER)
        self.client.set_tag(self.run_id, IMAGES_TAG, "true")
