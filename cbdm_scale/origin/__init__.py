"""Where a trained network comes from: a run, a checkpoint, a model in MLflow, foreign files.

found.py is what is known of one; opening.py finds it by its name, foreign.py and diffusers.py
read what others wrote; data.py is the data set that it learnt from.
"""

from cbdm_scale.origin.data import find_data
from cbdm_scale.origin.found import Origin
from cbdm_scale.origin.opening import MLFLOW, named_origin, open_origin

__all__ = ["MLFLOW", "Origin", "find_data", "named_origin", "open_origin"]
