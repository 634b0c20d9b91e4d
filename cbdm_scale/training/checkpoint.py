"""What a checkpoint holds, and how it is written: whole, or not at all.

No random state is kept: every random number is a function of the seed and of the image's
number (`cbdm_scale.diffusion.rng`), dropout's of the seed, the step and the rank.
"""

import hashlib
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import parse_json, structure
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import clip
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.power_ema import PowerEMA, pack, unpack

FORMAT_VERSION = 1


@dataclass
class Progress:
    """The counters of a run. All of them count over all ranks."""

    num_seen: int = 0
    """Images shown to the network: also the position in the sample plan."""
    steps: int = 0
    skipped_steps: int = 0
    """Steps left out because the gradient was not finite."""
    substitutions: list[int] = field(default_factory=list)
    """Damaged images that others stood in for, per class."""


@dataclass
class TrainState:
    """Everything a checkpoint holds."""

    net: nn.Module
    ema: EMA
    optimizer: torch.optim.Adam
    progress: Progress
    posthoc: tuple[PowerEMA, ...] = ()
    """Averages from which those of other widths are found after training."""


def optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """The optimiser's tensors by "<kind>.<parameter name>"; none before the first step."""
    names = {id(p): name for name, p in state.net.named_parameters()}
    return {
        f"{kind}.{names[id(p)]}": value
        for p, values in state.optimizer.state.items()
        for kind, value in values.items()
    }


@dataclass(frozen=True)
class Snapshot:
    """The state at one step, in memory of the host that nobody else writes to."""

    progress: Progress
    files: dict[str, dict[str, Tensor]]
    """File -> name -> tensor on the CPU."""


def take_snapshot(state: TrainState) -> Snapshot:
    """A copy of everything that a checkpoint holds."""
    files = {
        RunDir.MODEL: state.net.state_dict(),
        RunDir.EMA: state.ema.net.state_dict(),
        RunDir.OPTIMIZER: optimizer_tensors(state),
    }
    if state.posthoc:
        files[RunDir.POSTHOC] = pack(state.posthoc)
    copied = {
        file: {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
        for file, tensors in files.items()
    }
    return Snapshot(
        replace(state.progress, substitutions=[*state.progress.substitutions]), copied
    )


def _as_bytes(tensors: dict[str, Tensor]) -> bytes:
    return save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def save_checkpoint(folder: Storage, state: TrainState, about: dict[str, Any]) -> str:
    """Write a checkpoint into a run folder; its name. ``about`` is plain data."""
    return write_checkpoint(folder, take_snapshot(state), about)


def write_checkpoint(folder: Storage, snapshot: Snapshot, about: dict[str, Any]) -> str:
    """The same of a snapshot, which it uses up: a file is let go of when it is written."""
    num_seen = snapshot.progress.num_seen
    name, partial = RunDir.checkpoint(num_seen), RunDir.partial_checkpoint(num_seen)
    target = partial if folder.is_local else name
    folder.remove(name)
    folder.remove(partial)
    listing = {}
    try:
        for file in list(snapshot.files):
            data = _as_bytes(snapshot.files.pop(file))
            listing[file] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            folder.write_bytes(f"{target}/{file}", data)
        state_json = {
            "format_version": FORMAT_VERSION,
            "progress": asdict(snapshot.progress),
            "torch": torch.__version__,
            "files": listing,
            **about,
        }
        folder.write_json(f"{target}/{RunDir.STATE}", state_json)  # last: now it is whole
        if folder.is_local:
            folder.move(partial, name)
    except BaseException:
        folder.remove(target)
        raise
    return name


def read_checkpoint(
    folder: Storage, name: str, only: str | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """state.json and the files of a checkpoint; a ValueError names what is damaged.

    ``only`` reads, and so checks, a single file.
    """
    where = folder.path(name)
    try:
        about = parse_json(folder.read_bytes(f"{name}/{RunDir.STATE}"), RunDir.STATE)
        listing = about["files"]
        if about["format_version"] > FORMAT_VERSION:
            raise ValueError(f"format version {about['format_version']} is newer than ours")
        needed = {RunDir.MODEL, RunDir.EMA, RunDir.OPTIMIZER}
        if lacking := needed - listing.keys():
            raise ValueError(f"state.json names no {min(lacking)}")
        files = {}
        if outside := [file for file in listing if "/" in file or "\\" in file]:
            raise ValueError(
                f"state.json names {clip(outside[0])}, which is no file of the folder"
            )
        for file, expected in listing.items() if only is None else [(only, listing[only])]:
            files[file] = folder.read_bytes(f"{name}/{file}")
            if hashlib.sha256(files[file]).hexdigest() != expected["sha256"]:
                raise ValueError(
                    f"{file} has {len(files[file])} bytes whose sha256 is not the one written "
                    f"in state.json ({expected['bytes']} bytes)"
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint {where} is damaged: {clip(error, 400)}") from error
    return about, files


def progress_of(about: dict[str, Any], where: str) -> Progress:
    """The counters of a checkpoint, by its state.json; ValueError if they are none."""
    try:
        found: Progress = structure(Progress, about.get("progress"), "progress")
    except ValueError as error:
        raise ValueError(f"checkpoint {where} is damaged: in state.json {error}") from None
    if found.num_seen < 0:
        raise ValueError(f"checkpoint {where} is damaged: in state.json num_seen is below 0")
    return found


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """The value on the parameter's device and, if it has its shape, in its memory layout.

    Fused optimisers walk the memory of weights and moments side by side, whatever the strides.
    """
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _load_weights(net: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Fill a network; ValueError, before anything is filled, if the weights are another's."""
    here = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    there = {key: tuple(value.shape) for key, value in tensors.items()}
    differing = sorted(k for k in here | there if here.get(k) != there.get(k))
    if differing:
        first = differing[0]
        raise ValueError(
            f"checkpoint {name} is of another network than the one configured: "
            f"{len(differing)} tensors differ, the first is {first} "
            f"({there.get(first, 'absent')} there, {here.get(first, 'absent')} here). Give the "
            "run another --name, or the options of the network that it was made with."
        )
    net.load_state_dict(tensors)


def _restore(state: TrainState, progress: Progress, files: dict[str, bytes], name: str) -> None:
    _load_weights(state.net, load(files[RunDir.MODEL]), name)
    _load_weights(state.ema.net, load(files[RunDir.EMA]), name)
    tensors = load(files[RunDir.OPTIMIZER])
    for parameter_name, parameter in state.net.named_parameters():
        kinds = ("step", "exp_avg", "exp_avg_sq")
        state.optimizer.state[parameter] = {
            kind: _laid_out_like(parameter, tensors[f"{kind}.{parameter_name}"])
            for kind in kinds
            if f"{kind}.{parameter_name}" in tensors
        }
    if state.posthoc:
        if RunDir.POSTHOC not in files:
            raise ValueError(
                f"checkpoint {name} was made without train.posthoc_every, and the averages "
                "that it asks for begin with the run. Leave it at 0, or give the run another "
                "--name."
            )
        unpack(state.posthoc, load(files[RunDir.POSTHOC]))
    state.progress = progress


def load_newest(folder: Storage, state: TrainState) -> tuple[str | None, list[str]]:
    """Fill ``state`` from the newest whole checkpoint.

    Returns its name (None if there is none) and a line for every damaged one that was passed
    over. Raises ValueError if a whole checkpoint is of another network.
    """
    damaged: list[str] = []
    for name in reversed(RunDir(folder).checkpoints()):
        try:
            about, files = read_checkpoint(folder, name)
            progress = progress_of(about, folder.path(name))
        except ValueError as error:
            damaged.append(str(error))
            continue
        _restore(state, progress, files, folder.path(name))
        return name, damaged
    return None, damaged


def save_initial(folder: Storage, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write what a run starts from, for all ranks alike; ``about`` is plain data."""
    data = _as_bytes(tensors)
    folder.write_bytes(RunDir.INITIAL, data)
    digest = hashlib.sha256(data).hexdigest()
    folder.write_json(
        RunDir.INITIAL_ABOUT, {**about, "sha256": digest}
    )  # last: now it is whole


def load_initial(folder: Storage, *nets: nn.Module) -> str:
    """Fill networks with what ``save_initial`` wrote; where that came from.

    Weights that are not in it, of layers that the trained network lacked, stay as they are.
    """
    try:
        about, data = folder.read_json(RunDir.INITIAL_ABOUT), folder.read_bytes(RunDir.INITIAL)
    except OSError as error:
        raise ValueError(
            f"{folder.path(RunDir.INITIAL)}, what the run started from, cannot be read: {error}"
        ) from error
    if hashlib.sha256(data).hexdigest() != about.get("sha256"):
        raise ValueError(
            f"{folder.path(RunDir.INITIAL)} is damaged: its sha256 is not the one in "
            f"{RunDir.INITIAL_ABOUT}. Remove both, and give the same command again."
        )
    tensors = load(data)
    for net in nets:
        _load_weights(net, net.state_dict() | tensors, RunDir.INITIAL)
    return str(about.get("url"))


def drop_old_checkpoints(folder: Storage, keep: int, needed: Collection[int]) -> None:
    """Leave the newest ``keep``, and those after these numbers of images."""
    names = {RunDir.checkpoint(num_seen) for num_seen in needed}
    for name in RunDir(folder).checkpoints()[:-keep]:
        if name not in names:
            folder.remove(name)
