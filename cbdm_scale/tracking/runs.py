"""One MLflow run per run folder, which every restart of the run continues."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.client import (
    SQLITE,
    batches,
    clean_name,
    database_file,
    hide_password,
    is_refusal,
    make_client,
)
from cbdm_scale.tracking.mlflow_internals import LONGEST_PARAM, PARAMS_PER_CALL

WAY_OUT = "Start the server, or leave --track.uri out to use sqlite in the storage folder."
log = logging.getLogger(__name__)


def default_tracking_uri(storage: Storage) -> str:
    """MLFLOW_TRACKING_URI if it is set, else a database in the storage folder."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if not storage.is_local:
        raise ValueError(
            "track.uri is empty, and a database cannot live in cluster.storage "
            f"({storage.url}). Set --track.uri or MLFLOW_TRACKING_URI to an MLflow server."
        )
    return f"{SQLITE}{storage.path('mlflow.db')}"


def ui_command(uri: str) -> str:
    """What to type, or the address to open, to look at the runs."""
    if database_file(uri) is not None:
        return f"mlflow ui --backend-store-uri {uri}"
    return hide_password(uri)


def start_run(
    tracking_uri: str,
    experiment: str,
    run: Storage,
    run_name: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> str:
    """The id of the folder's MLflow run, made now or before; the driver calls it once."""
    if run.exists(RunDir.MLFLOW_RUN_ID):
        run_id = run.read_text(RunDir.MLFLOW_RUN_ID).strip()
        _continue_run(tracking_uri, run, run_id, tags)
        return run_id
    try:
        client = make_client(tracking_uri)
        home = _find_experiment(client, tracking_uri, experiment)
        run_id = str(client.create_run(home, run_name=run_name).info.run_id)
        describe(client, run_id, params, tags)
    except Exception as error:  # each kind of store raises its own
        raise ValueError(
            f"track.uri ({hide_password(tracking_uri)}) does not answer: "
            f"{hide_password(str(error))}. {WAY_OUT}"
        ) from error
    run.write_bytes(RunDir.MLFLOW_RUN_ID, f"{run_id}\n".encode())
    return run_id


def _continue_run(uri: str, run: Storage, run_id: str, tags: Mapping[str, str]) -> None:
    """Set the run to RUNNING again; a server that is away now may come back later."""
    from mlflow.exceptions import MlflowException

    try:
        client = make_client(uri)
        client.update_run(run_id, status="RUNNING")
        describe(client, run_id, {}, tags)
    except Exception as error:
        unknown = isinstance(error, MlflowException) and (
            error.error_code == "RESOURCE_DOES_NOT_EXIST" or is_refusal(error)
        )
        if unknown:
            raise ValueError(
                f"track.uri ({hide_password(uri)}) does not have the MLflow run {run_id} of "
                f"{run.url} (any more): {hide_password(str(error))}. Give the --track.uri that "
                f"the run began with, or delete {run.path(RunDir.MLFLOW_RUN_ID)} to begin a "
                "new MLflow run."
            ) from error
        log.warning(
            "track.uri (%s) does not answer: %s. The run goes on, its records wait in %s.",
            hide_password(uri),
            hide_password(str(error)),
            run.path("tracking"),
        )


def _find_experiment(client: Any, uri: str, name: str) -> str:
    """The experiment's id; with sqlite its artifacts stand beside the database."""
    from mlflow.exceptions import MlflowException

    if (known := client.get_experiment_by_name(name)) is None:
        artifacts = None
        if (file := database_file(uri)) is not None:
            artifacts = Storage(os.path.dirname(Storage(file).url)).path("mlartifacts")
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = client.get_experiment_by_name(name)  # another driver was faster
    return str(known.experiment_id)


def describe(
    client: Any, run_id: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    """Log parameters and tags of a run, cut to the lengths and batches that MLflow takes."""
    from mlflow.entities import Param, RunTag

    every = [Param(clean_name(k), str(v)[:LONGEST_PARAM]) for k, v in params.items()]
    for batch in batches(every, PARAMS_PER_CALL):
        client.log_batch(run_id, params=batch)
    some = [RunTag(clean_name(k), str(v)[:LONGEST_PARAM]) for k, v in tags.items()]
    for batch in batches(some, PARAMS_PER_CALL):
        client.log_batch(run_id, tags=batch)


@contextmanager
def _warning_only(uri: str, words: str) -> Iterator[None]:
    """Whatever a tracking server raises inside is a warning: the run goes on without it."""
    try:
        yield
    except Exception as error:
        log.warning(
            "track.uri (%s) %s (%s).", hide_password(uri), words, hide_password(str(error))
        )


def tag_run(tracking_uri: str, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run; a server that is away is only warned about."""
    with _warning_only(tracking_uri, "does not take tags"):
        describe(make_client(tracking_uri), run_id, {}, tags)


def end_run(tracking_uri: str, run_id: str, status: str) -> None:
    """Set "FINISHED", "FAILED" or "KILLED"; a server that is away is only warned about."""
    end_time = time.time_ns() // 1_000_000
    with _warning_only(tracking_uri, "does not answer: the run's status stays as it is"):
        make_client(tracking_uri).set_terminated(run_id, status=status, end_time=end_time)


def end_run_after(
    tracking_uri: str, run_id: str, work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What ``work()`` returns; its MLflow run then ends as it did, also if it raised.

    An outcome {"error": text} is what the user can mend: a ValueError with the text.
    """
    status = "FAILED"
    try:
        outcome = work()
        if "error" in outcome:
            raise ValueError(outcome["error"])
        status = "FINISHED" if outcome["how"] == "finished" else "KILLED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        end_run(tracking_uri, run_id, status)
    return outcome
