"""What a tracking server or database answers instead of doing it: its cause, and the cure.

MLflow and what is below it (requests, SQLAlchemy) have a kind of error for each; here they are
told apart by their words. What no line knows keeps its own words, and no cure is made up.
"""

import os
import re

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.path_options import SQLITE
from cbdm_scale.storage.wording import clip
from cbdm_scale.tracking.client import database_file, hide_password
from cbdm_scale.tracking.options import VARIABLE

AWAY = "Connection refused|Max retries|timed out|Connection aborted|Name or service not known"
AWAY += "|Temporary failure in name|Network is unreachable|No route to host|Connection reset"
ANSWERS = (
    (AWAY, "does not answer", "Start the server"),
    ("Invalid Host header", "does not serve this name", "Start it with --allowed-hosts NAME"),
    (
        "error code 401|error code 403|Unauthorized|Permission denied|PERMISSION_DENIED",
        "refuses the user",
        "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    ("error code 404", "is no MLflow server", "Give the address that its own page has"),
    (
        "maintenance mode",
        "is a folder of files, which this MLflow does not take any more",
        f"Give a database, {SQLITE}/folder/mlflow.db, or set MLFLOW_ALLOW_FILE_STORE=true",
    ),
    (
        "out-of-date database schema",
        "is of another MLflow",
        "Make a copy of it, then: mlflow db upgrade ADDRESS",
    ),
    (
        "unable to open database file",
        "cannot be opened",
        "Make its folder, or let it be written",
    ),
    ("file is not a database", "is no database", "Give the file of one, or a new name"),
    ("readonly database", "may not be written", "Give it the rights, or another place"),
    ("database is locked", "is locked by another process", "Wait, or use a server"),
    (
        "experiment [^ ]+ must be in the 'active'",
        "has deleted the experiment",
        "Restore it (mlflow experiments restore --experiment-id ID), or choose another "
        "--track.experiment",
    ),
    (
        "run [^ ]+ must be in the 'active'",
        "has deleted the run",
        "Restore it: mlflow runs restore --run-id ID",
    ),
    (
        "unsupported URI|Could not parse|NoSuchModule",
        "is no address that MLflow knows",
        f"Give http://HOST:PORT, or {SQLITE}/folder/mlflow.db",
    ),
)
"""Words of the error -> what the address does, what mends it."""


def source_of(uri: str) -> str:
    """Where an address was given: the option, or the variable that stands in for it."""
    given = os.environ.get(VARIABLE, "")
    alike = uri == given or (SQLITE in given and database_file(uri) == _file(given))
    return VARIABLE if given and alike else "track.uri"


def _file(uri: str) -> str | None:
    file = database_file(uri)
    return None if file is None else Storage(file).url


def address(uri: str) -> str:
    """An address by its source, without a password: MLFLOW_TRACKING_URI (http://host:5000)."""
    return f"{source_of(uri)} ({hide_password(uri)})"


def explain(uri: str, error: Exception) -> str:
    """What an address answered, why, and what to do, as sentences without a password."""
    words = hide_password(str(error)).strip() or type(error).__name__
    for pattern, does, cure in ANSWERS:
        if re.search(pattern, words, re.IGNORECASE):
            return f"{address(uri)} {does}: {_short(words)}. {cure}{_or_without(uri)}."
    return f"{address(uri)} answers: {_short(words)}."


def _or_without(uri: str) -> str:
    """The way that is always open, in the words of the address's source."""
    if database_file(uri) is not None:
        return ""
    leave = f"unset {VARIABLE}" if source_of(uri) == VARIABLE else "leave --track.uri out"
    return f", or {leave} to use sqlite in the storage folder"


def _short(words: str) -> str:
    """The first line, cut where it fills a screen."""
    return clip(words.partition("\n")[0].rstrip(". "), 300)
