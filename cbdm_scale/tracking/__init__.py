"""What a run tells MLflow, by way of a spool that outlives the server and the process.

tracker.py (what the loop calls) -> spool.py (records on disk) -> sender.py (records to MLflow)
runs.py: one MLflow run per run folder; models.py and served_model.py: a checkpoint as a model;
results.py: a finished evaluation.
``mlflow`` itself is imported by the functions that need it: importing this folder is free.
"""

from cbdm_scale.tracking.models import fetch_model
from cbdm_scale.tracking.results import log_results, run_id_of
from cbdm_scale.tracking.runs import (
    TrackConfig,
    default_tracking_uri,
    end_run,
    followed,
    start_run,
    tag_run,
)
from cbdm_scale.tracking.tracker import MlflowTracker, NoTracker, Tracker

__all__ = [
    "MlflowTracker",
    "NoTracker",
    "TrackConfig",
    "Tracker",
    "default_tracking_uri",
    "end_run",
    "fetch_model",
    "followed",
    "log_results",
    "run_id_of",
    "start_run",
    "tag_run",
]
