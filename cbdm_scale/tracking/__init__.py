"""What a run logs to MLflow, by way of a spool that outlives the server and the process.

tracker.py (what the loop calls) -> spool.py (records on disk) -> sender.py (records to MLflow)
runs.py: one MLflow run per run folder; models.py: a checkpoint as a model;
log_evaluation.py: a finished evaluation; client.py: MLflow's client, and the names it takes;
answers.py: what a server or database answers instead, and the cure;
mlflow_internals.py: what MLflow does inside and is done here as well.
``mlflow`` itself is imported by the functions that need it: importing this folder is free.
"""

from cbdm_scale.tracking.client import check_server, database_file, hide_password
from cbdm_scale.tracking.log_evaluation import log_results, run_id_of
from cbdm_scale.tracking.models import fetch_model
from cbdm_scale.tracking.options import TrackConfig
from cbdm_scale.tracking.runs import (
    NOTE,
    default_tracking_uri,
    end_run,
    end_run_after,
    start_run,
    tag_run,
    ui_command,
)
from cbdm_scale.tracking.tracker import MlflowTracker, NoTracker, Tracker

__all__ = [
    "NOTE",
    "MlflowTracker",
    "NoTracker",
    "TrackConfig",
    "Tracker",
    "check_server",
    "database_file",
    "default_tracking_uri",
    "end_run",
    "end_run_after",
    "fetch_model",
    "hide_password",
    "log_results",
    "run_id_of",
    "start_run",
    "tag_run",
    "ui_command",
]
