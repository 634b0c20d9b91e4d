"""Which weights of a checkpoint: the average, the trained ones, or an average of some width."""

from safetensors.torch import load, save

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.power_ema import gamma_of
from cbdm_scale.training.snapshots import average_of_width

POWER = "power:"
"""Before the relative width of an average that is found after training."""


def check_weights(weights: str) -> None:
    """ValueError unless it is ema, raw or power:WIDTH."""
    if weights in ("ema", "raw"):
        return
    try:
        if not weights.startswith(POWER):
            raise ValueError("it is neither of them")
        gamma_of(float(weights.removeprefix(POWER)))
    except ValueError as error:
        raise ValueError(
            f"weights ({weights}) must be ema (the average), raw (what was trained) or "
            f"power:WIDTH (an average found after training, such as power:0.1): {error}"
        ) from error


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
