"""Networks that no run of ours trained: files of the paper's code, folders of diffusers."""

import hashlib
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from cbdm_scale.config.schema import Config
from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.diffusers_folder import read_diffusers
from cbdm_scale.pretrained.network import PretrainedNetwork
from cbdm_scale.pretrained.paper_checkpoint import load_paper_checkpoint
from cbdm_scale.sampling.options import SamplerConfig
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import split_scheme
from cbdm_scale.storage.wording import clip
from cbdm_scale.training.options import POWER


def open_paper_checkpoint(run: str, weights: str, resolution: int | None) -> PretrainedNetwork:
    """A .pt of the paper's own code. ValueError if it is none, or lacks these weights."""
    if weights.startswith(POWER):
        raise ValueError(
            f"weights ({weights}): {run} holds no kept averages. Choose ema or raw."
        )
    if split_scheme(run)[0]:
        raise ValueError(f"run ({run}) must be a local file. Copy it here first.")
    path = Path(run).expanduser()
    if not path.is_file():
        raise ValueError(f"run ({run}) does not exist, or is no file. Give --run a .pt file.")
    read = load_paper_checkpoint(path, which="ema" if weights == "ema" else "net")
    spec = NetworkSpec(
        model=read.config,
        channels=read.image_channels,
        image_size=_image_size(run, read.image_size, resolution),
        num_classes=read.num_classes,
        num_steps=read.num_steps,
        augment=read.augment,
    )
    found = _without_run(
        str(path.resolve()),
        path.stem if read.step is None else f"step{read.step}",
        read.state_dict,
        spec,
        ScheduleConfig(num_steps=read.num_steps),
    )
    return replace(found, notes=read.report)


def open_diffusers(
    folder: Storage, run: str, weights: str, resolution: int | None
) -> PretrainedNetwork:
    """A folder of diffusers. ValueError if its network or noise is none of ours."""
    if weights != "ema":
        raise ValueError(
            f"weights ({weights}) are not in a folder of diffusers, which holds one network. "
            "Leave --weights out."
        )
    try:
        read = read_diffusers(folder)
    except (
        *(ValueError, KeyError, OSError, TypeError, AttributeError, RuntimeError),
        *(OverflowError, SafetensorError),
    ) as error:
        raise ValueError(
            f"run ({run}) is a folder of diffusers, but {clip(error, 500)}"
        ) from error
    spec = NetworkSpec(
        model=read.config,
        channels=read.channels,
        image_size=_image_size(run, read.image_size, resolution),
        num_classes=read.num_classes,
        num_steps=read.schedule.num_steps,
    )
    name = folder.url.rpartition("/")[2]
    return replace(
        _without_run(read.url, name, read.state_dict, spec, read.schedule),
        class_names=read.class_names,
        fingerprint=read.fingerprint,
        notes=read.notes,
    )


def _image_size(run: str, said: int | None, resolution: int | None) -> int:
    """What its file says, or else the user."""
    size = resolution or said
    if size is None:
        raise ValueError(
            f"run ({run}) does not say how large its images are. Give their height in pixels: "
            "--resolution 32."
        )
    if said is not None and size != said:
        raise ValueError(
            f"resolution ({resolution}) is not that of {run}, {said}. Leave it out."
        )
    return size


def _without_run(
    url: str,
    checkpoint: str,
    state_dict: dict[str, Tensor],
    spec: NetworkSpec,
    schedule: ScheduleConfig,
) -> PretrainedNetwork:
    """With the configuration of a run that would have this network and noise."""
    tensors = {name: tensor.contiguous() for name, tensor in state_dict.items()}
    return PretrainedNetwork(
        url=url,
        checkpoint=checkpoint,
        tensors=tensors,
        weights_sha256=hashlib.sha256(save(tensors)).hexdigest(),
        spec=spec,
        config=Config(
            dataset="",
            backbone="unet" if isinstance(spec.model, UNetConfig) else "dit",
            model=spec.model,
            diffusion=schedule,
            sample=SamplerConfig(num_steps=min(100, schedule.num_steps)),
        ),
    )
