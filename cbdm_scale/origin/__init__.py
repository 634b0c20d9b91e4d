"""Where a trained network comes from: a run, a checkpoint, a model in MLflow, foreign files."""

from cbdm_scale.origin.data import find_data
from cbdm_scale.origin.opening import MLFLOW, Origin, named_origin, open_origin

__all__ = ["MLFLOW", "Origin", "find_data", "named_origin", "open_origin"]
