"""Which weights of a checkpoint: the average, the trained ones, or an average of some width.

Averages are kept during training: a file has the running ones after so many images,
"<width>/<parameter>", float16. The one beside it has its size and sha256 and is written last.
An average of any width is found from them.
"""

import hashlib

from safetensors.torch import load, save
from torch import Tensor

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.options import POWER
from cbdm_scale.training.power_ema import (
    WIDTHS,
    PowerEMA,
    Profile,
    combination,
    gamma_of,
    pack,
)


def keep_averages(run: Storage, averages: tuple[PowerEMA, ...], num_seen: int) -> None:
    """Write what the averages are after so many images; again, after a restart, the same."""
    tensors = {name: t.detach().cpu().half().contiguous() for name, t in pack(averages).items()}
    data = save(tensors)
    file, about = RunDir.averages(num_seen)
    run.write_bytes(file, data)
    run.write_json(about, {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})


def _read(run: Storage, num_seen: int) -> dict[str, Tensor]:
    file, about = RunDir.averages(num_seen)
    data = run.read_bytes(file)
    if hashlib.sha256(data).hexdigest() != run.read_json(about).get("sha256"):
        raise ValueError(
            f"{run.path(file)} is damaged: its sha256 is not the one in the .json beside it. "
            "Remove both; the average is found from the others."
        )
    return load(data)


def average_of_width(run: Storage, width: float, num_seen: int) -> dict[str, Tensor]:
    """The weights averaged with relative width sigma_rel, as after so many images.

    Parameter name -> float32. From all averages kept until then, each read once. ValueError if
    none was kept, or if the last was kept earlier than ``num_seen``.
    """
    gamma_of(width)  # complains about the width first
    every = RunDir(run).kept_averages()
    times = [time for time in every if time <= num_seen]
    if not times or times[-1] != num_seen:
        there = ", ".join(f"{time:,}" for time in every[-3:]) or "none"
        raise ValueError(
            f"run {run.url} kept no averages after {num_seen:,} images (the last: {there}), "
            "and an average of a chosen width needs them. Train with --train.posthoc-every, or "
            "choose a checkpoint at one of them."
        )
    kept = [Profile(w, t) for t in times for w in WIDTHS]
    factors = combination(kept, Profile(width, num_seen)).reshape(len(times), len(WIDTHS))
    total: dict[str, Tensor] = {}
    for time, row in zip(times, factors.tolist(), strict=True):
        tensors = _read(run, time)
        for w, factor in zip(WIDTHS, row, strict=True):
            for key, value in tensors.items():
                width_there, _, name = key.partition("/")
                if width_there == f"{w:g}":
                    share = factor * value.float()
                    total[name] = total[name].add_(share) if name in total else share
    return total


def weights_file(weights: str) -> str:
    """The file of a checkpoint that they are in, or are built upon."""
    return RunDir.MODEL if weights == "raw" else RunDir.EMA


def select_weights(run: Storage, num_seen: int, data: bytes, weights: str) -> bytes:
    """The safetensors file of the weights; ``data`` is what ``weights_file`` them holds."""
    if not weights.startswith(POWER):
        return data
    averages = average_of_width(run, float(weights.removeprefix(POWER)), num_seen)
    tensors = load(data)
    return save({name: averages.get(name, t).contiguous() for name, t in tensors.items()})
