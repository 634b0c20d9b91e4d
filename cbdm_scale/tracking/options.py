"""Options of MLflow: where it is, and the experiment."""

from dataclasses import dataclass
from typing import Annotated

from cbdm_scale.storage.path_options import Folder, PathOption
from cbdm_scale.storage.remote import refuse_password

VARIABLE = "MLFLOW_TRACKING_URI"
"""Of the environment: MLflow's own, for where it is."""


@dataclass(frozen=True, kw_only=True)
class TrackUri:
    uri: Folder = ""
    """MLflow server or database of a run or a model; "" is the run's own, and for a model
    MLFLOW_TRACKING_URI, else mlflow.db in ~/cbdm_scale/runs."""


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Options --track.*."""

    uri: Annotated[str, PathOption(lasts=True, variable=VARIABLE)] = ""
    """MLflow server or database; "" is MLFLOW_TRACKING_URI, else mlflow.db beside the runs."""

    experiment: str = "cbdm_scale"
    """MLflow experiment that the run belongs to."""

    def __post_init__(self) -> None:
        refuse_password("track.uri", self.uri)
        if not self.experiment.strip():
            raise ValueError("track.experiment is empty. Try --track.experiment cbdm_scale.")
