"""Numbers and files of a finished evaluation into the run's MLflow run, in one go.

They do not pass through the spool, which takes a name once for each number of images: another
evaluation of the same checkpoint is logged as well.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.client import (
    batches,
    clean_name,
    database_file,
    make_client,
)
from cbdm_scale.tracking.errors import address, explain
from cbdm_scale.tracking.mlflow_internals import METRICS_PER_CALL
from cbdm_scale.tracking.runs import default_tracking_uri, describe


def run_id_of(run: Storage) -> str:
    """The id of the folder's MLflow run, "" where it has none."""
    return (
        run.read_text(RunDir.MLFLOW_RUN_ID).strip() if run.exists(RunDir.MLFLOW_RUN_ID) else ""
    )


def log_results(
    run: Storage,
    uri: str,
    step: int,
    metrics: Mapping[str, float],
    files: Mapping[str, bytes],
    folder: str,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Log metrics at ``step`` (images seen), files under ``folder``, tags of the run.

    "", or why it could not.

    ``uri`` "" is the server of MLFLOW_TRACKING_URI, else the database beside the run.
    """
    try:
        uri = uri or default_tracking_uri(Storage(run.url.rpartition("/")[0]))
        if (file := database_file(uri)) is not None and not Path(file).exists():
            return (
                f"{address(uri)}: there is no such database. Give its place with --track.uri."
            )
        _log(uri, run_id_of(run), step, metrics, files, folder, tags or {})
    except Exception as error:  # each kind of store raises its own
        return explain(uri, error)
    return ""


def _log(
    uri: str,
    run_id: str,
    step: int,
    metrics: Mapping[str, float],
    files: Mapping[str, bytes],
    folder: str,
    tags: Mapping[str, str],
) -> None:
    client = make_client(uri)
    from mlflow.entities import Metric

    with tempfile.TemporaryDirectory() as scratch:
        for name, data in files.items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        client.log_artifacts(run_id, scratch, folder)
    describe(client, run_id, {}, tags)
    now = time.time_ns() // 1_000_000
    every = [Metric(clean_name(k), v, now, step) for k, v in metrics.items()]
    for batch in batches(every, METRICS_PER_CALL):  # last: an evaluation with numbers is whole
        client.log_batch(run_id, batch)
