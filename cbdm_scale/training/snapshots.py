"""The averages that are kept during training, on disk, and the average of any width from them.

posthoc/<images>.safetensors    the running averages, "<width>/<parameter>", float16
posthoc/<images>.json           its size and sha256, written last
"""

import hashlib

from safetensors.torch import load, save
from torch import Tensor

from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.power_ema import (
    WIDTHS,
    PowerEMA,
    Profile,
    combination,
    gamma_of,
    pack,
)

FOLDER = "posthoc"


def keep_averages(run: Storage, averages: tuple[PowerEMA, ...], images: int) -> None:
    """Write what the averages are after so many images; again, after a restart, the same."""
    tensors = {name: t.detach().cpu().half().contiguous() for name, t in pack(averages).items()}
    data = save(tensors)
    stem = f"{FOLDER}/{images:012d}"
    run.write_bytes(f"{stem}.safetensors", data)
    about = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    run.write_json(f"{stem}.json", about)


def kept_averages(run: Storage, until: int) -> list[int]:
    """After how many images averages were kept, up to ``until``, in rising order."""
    names = run.child(FOLDER).list() if run.exists(FOLDER) else []
    stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return sorted(int(s) for s in stems if s.isdecimal() and int(s) <= until)


def _read(run: Storage, images: int) -> dict[str, Tensor]:
    stem = f"{FOLDER}/{images:012d}"
    data, about = run.read_bytes(f"{stem}.safetensors"), run.read_json(f"{stem}.json")
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise ValueError(
            f"{run.path(stem)}.safetensors is damaged: its sha256 is not the one in the .json "
            "beside it. Remove both; the average is found from the others."
        )
    return load(data)


def average_of_width(run: Storage, width: float, images: int) -> dict[str, Tensor]:
    """The weights averaged with relative width sigma_rel, as after so many images.

    Parameter name -> float32. From all averages kept until then, each read once. ValueError if
    none was kept, or if the last was kept earlier than ``images``.
    """
    gamma_of(width)  # complains about the width first
    times = kept_averages(run, images)
    if not times or times[-1] != images:
        there = ", ".join(f"{t:,}" for t in kept_averages(run, 1 << 62)[-3:]) or "none"
        raise ValueError(
            f"run {run.url} kept no averages after {images:,} images (the last: {there}), and "
            "an average of a chosen width needs them. Train with --train.posthoc-every, or "
            "choose a checkpoint at one of them."
        )
    kept = [Profile(w, t) for t in times for w in WIDTHS]
    factors = combination(kept, Profile(width, images)).reshape(len(times), len(WIDTHS))
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
