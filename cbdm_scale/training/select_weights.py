"""Which weights of a checkpoint: the average, the trained ones, or an average of some width."""

from safetensors.torch import load, save

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.options import POWER
from cbdm_scale.training.snapshots import average_of_width


def file_of(weights: str) -> str:
    """The file of a checkpoint that they are in, or are built upon."""
    return RunDir.MODEL if weights == "raw" else RunDir.EMA


def select_weights(run: Storage, num_seen: int, data: bytes, weights: str) -> bytes:
    """The safetensors file of the weights; ``data`` is what ``file_of`` them holds."""
    if not weights.startswith(POWER):
        return data
    averages = average_of_width(run, float(weights.removeprefix(POWER)), num_seen)
    tensors = load(data)
    return save({name: averages.get(name, t).contiguous() for name, t in tensors.items()})
