"""One MLflow run per run folder, which every restart of the run continues."""

import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any
from urllib.parse import unquote

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.path_options import SQLITE, absolute_uri
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import clip
from cbdm_scale.tracking.client import (
    batches,
    clean_name,
    database_file,
    hide_password,
    is_refusal,
    make_client,
)
from cbdm_scale.tracking.errors import address, explain
from cbdm_scale.tracking.mlflow_internals import LONGEST_PARAM, LONGEST_TAG, PARAMS_PER_CALL
from cbdm_scale.tracking.options import VARIABLE

ARTIFACTS = "mlartifacts"
"""Beside an sqlite database: the files of its runs."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description, in Markdown."""
log = logging.getLogger(__name__)


def default_tracking_uri(storage: Storage) -> str:
    """MLFLOW_TRACKING_URI if it is set, else a database in the storage folder."""
    if uri := os.environ.get(VARIABLE):
        return absolute_uri(VARIABLE, uri)
    if not storage.is_local:
        raise ValueError(
            "track.uri is empty, and a database cannot live in cluster.storage "
            f"({storage.url}). Set --track.uri or MLFLOW_TRACKING_URI to an MLflow server."
        )
    return f"{SQLITE}{storage.path('mlflow.db')}"


def ui_command(uri: str, run_id: str) -> str:
    """What to type, and the address to open, to look at the runs of a run's experiment.

    Without the experiment's page MLflow opens at its traces of language models.
    """
    page = ""
    with suppress(Exception):  # of a server that is away, its first page will do
        experiment = make_client(uri).get_run(run_id).info.experiment_id
        page = f"/#/experiments/{experiment}?workflowType=machine_learning"
    if database_file(uri) is not None:
        ui = f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        return f"{ui}  # then open http://127.0.0.1:5000{page}"
    return f"{hide_password(uri).rstrip('/')}{page}"


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
        raise ValueError(explain(tracking_uri, error)) from error
    run.write_bytes(RunDir.MLFLOW_RUN_ID, f"{run_id}\n".encode())
    return run_id


def _continue_run(uri: str, run: Storage, run_id: str, tags: Mapping[str, str]) -> None:
    """Set the run to RUNNING again; a server that is away now may come back later."""
    from mlflow.exceptions import MlflowException

    try:
        client = make_client(uri)
        client.update_run(run_id, status="RUNNING")
        found = client.get_run(run_id)
        if place := _files_elsewhere(found.info.artifact_uri, _artifact_folder(uri)):
            print(
                f"MLflow has this run's files in {place}, and puts new ones there", flush=True
            )
        describe(client, run_id, {}, tags)
    except Exception as error:
        unknown = isinstance(error, MlflowException) and (
            error.error_code == "RESOURCE_DOES_NOT_EXIST" or is_refusal(error)
        )
        if unknown:
            raise ValueError(
                f"{address(uri)} does not have the MLflow run {run_id} of "
                f"{run.url} (any more): {clip(hide_password(str(error)))}. Give the "
                "--track.uri that the run began with, or delete "
                f"{run.path(RunDir.MLFLOW_RUN_ID)} to begin a new MLflow run."
            ) from error
        log.warning(
            "%s The run goes on, its records wait in %s.",
            explain(uri, error),
            run.path(RunDir.TRACKING),
        )


def _find_experiment(client: Any, uri: str, name: str) -> str:
    """The experiment's id, made where there is none.

    With sqlite its files stand beside the database. One whose files stand beside another
    database (a folder of runs that was copied) is left alone, and gets a sibling.
    """
    from mlflow.exceptions import MlflowException

    artifacts, first = _artifact_folder(uri), name
    for number in count(2):
        known = client.get_experiment_by_name(name)
        if known is None:
            try:
                return str(client.create_experiment(name, artifact_location=artifacts))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            known = client.get_experiment_by_name(name)  # another driver was faster
        elsewhere = _files_elsewhere(known.artifact_location, artifacts)
        if not elsewhere:
            if known.lifecycle_stage == "deleted":
                raise ValueError(
                    f"experiment {known.experiment_id} must be in the 'active' state, and "
                    f"{name} is deleted"
                )
            return str(known.experiment_id)
        old, name = name, f"{first}-{number}"
        print(f"experiment {name}: {old} has its files in {elsewhere}", flush=True)
    raise AssertionError("numbers do not end")


def _artifact_folder(uri: str) -> str | None:
    """Where an sqlite database's runs have their files; a server knows that itself."""
    file = database_file(uri)
    if file is None:
        return None
    return Storage(os.path.dirname(Storage(file).url)).path(ARTIFACTS)


def _files_elsewhere(location: str, artifacts: str | None) -> str:
    """Where files are that stand beside another sqlite database; "" if they do not."""
    place = unquote(location.removeprefix("file://"))
    ours = artifacts is not None and f"/{ARTIFACTS}/" in f"{place}/"
    return place if ours and not f"{place}/".startswith(f"{artifacts}/") else ""


def describe(
    client: Any, run_id: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    """Log parameters and tags of a run, cut to the lengths and batches that MLflow takes."""
    from mlflow.entities import Param, RunTag

    every = [Param(clean_name(k), str(v)[:LONGEST_PARAM]) for k, v in params.items()]
    for batch in batches(every, PARAMS_PER_CALL):
        client.log_batch(run_id, params=batch)
    some = [RunTag(clean_name(k), str(v)[:LONGEST_TAG]) for k, v in tags.items()]
    for batch in batches(some, PARAMS_PER_CALL):
        client.log_batch(run_id, tags=batch)


@contextmanager
def _warning_only(uri: str, words: str) -> Iterator[None]:
    """Whatever a tracking server raises inside is a warning: the run goes on without it."""
    try:
        yield
    except Exception as error:
        log.warning("%s %s", explain(uri, error), words)


def tag_run(tracking_uri: str, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run; a server that is away is only warned about."""
    with _warning_only(tracking_uri, "The run has no new tags."):
        describe(make_client(tracking_uri), run_id, {}, tags)


def end_run(tracking_uri: str, run_id: str, status: str) -> None:
    """Set "FINISHED", "FAILED" or "KILLED"; a server that is away is only warned about."""
    end_time = time.time_ns() // 1_000_000
    with _warning_only(tracking_uri, "The run's status stays as it is."):
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
