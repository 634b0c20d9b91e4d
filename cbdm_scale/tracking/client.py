"""MLflow's client: quiet, without telemetry, never waiting for long."""

import importlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from cbdm_scale.storage.path_options import SQLITE
from cbdm_scale.tracking.mlflow_internals import LONGEST_NAME

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}
NOISE = (  # warnings of MLflow about its own types, and about models whose signature we give
    "Any type hint is inferred as AnyType",
    "An input example was not provided",
)
PATIENCE = {  # one attempt each: the sender repeats it, and start_run wants to say no at once
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
Item = TypeVar("Item")


def import_mlflow() -> None:
    """Import it (a second or so), quiet and without telemetry; no server, no database."""
    for name, value in QUIET.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    for name in "mlflow", "alembic":
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=f".*{message}", category=UserWarning)
    importlib.import_module("mlflow.pyfunc")


def make_client(tracking_uri: str) -> Any:
    """An MlflowClient for one server or database; it opens no connection yet over HTTP."""
    import_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def database_file(uri: str) -> str | None:
    """The file of a sqlite:/// database; None for any other."""
    return uri.removeprefix(SQLITE) if uri.startswith(SQLITE) else None


def check_server(uri: str) -> None:
    """ValueError (without a password) if the server at a URI does not answer."""
    try:
        make_client(uri).search_experiments(max_results=1)
    except Exception as error:  # each kind of store raises its own
        from cbdm_scale.tracking.errors import explain

        raise ValueError(explain(uri, error)) from None


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Parts of at most ``size`` items, in order."""
    return (items[start : start + size] for start in range(0, len(items), size))


def clean_name(name: str) -> str:
    """A name that MLflow takes for metrics, parameters, tags and images."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)[:LONGEST_NAME]


def hide_password(uri: str) -> str:
    """http://user:secret@host as http://host, for messages."""
    return re.sub(r"//[^/\s]*@", "//", uri)


def is_refusal(error: Exception) -> bool:
    """Whether MLflow answered and said no to the content, so that repeating is in vain."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return False
    return error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
