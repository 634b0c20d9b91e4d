"""Where a trained network comes from: a run, a checkpoint, a model in MLflow, foreign files.

network.py: what is known of one; loading.py finds it by its name, third_party.py and
diffusers_folder.py read what others wrote; dataset.py: the data set that it learnt from.
"""

from cbdm_scale.pretrained.dataset import find_data
from cbdm_scale.pretrained.loading import MLFLOW, load_pretrained, named_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork

__all__ = ["MLFLOW", "PretrainedNetwork", "find_data", "load_pretrained", "named_pretrained"]
