"""Networks that no run of ours trained: files of the paper's code, folders of diffusers."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save

from cbdm_scale.config.schema import Config
from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.pretrained.diffusers_folder import read_diffusers
from cbdm_scale.pretrained.network import SAMPLES, PretrainedNetwork
from cbdm_scale.pretrained.paper_checkpoint import load_foreign
from cbdm_scale.sampling.options import SamplerConfig
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import split_scheme
from cbdm_scale.training.select_weights import POWER


def _image_size(run: str, said: int | None, resolution: int | None) -> int:
    """Of a network that comes without a run: what its file says, or else the user."""
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


def open_foreign(run: str, weights: str, resolution: int | None) -> PretrainedNetwork:
    """A .pt of the paper's own code."""
    if weights.startswith(POWER):
        raise ValueError(
            f"weights ({weights}): {run} holds no kept averages. Choose ema or raw."
        )
    if split_scheme(run)[0]:
        raise ValueError(f"run ({run}) must be a local file. Copy it here first.")
    path = Path(run).expanduser()
    if not path.is_file():
        raise ValueError(f"run ({run}) does not exist, or is no file. Give --run a .pt file.")
    read = load_foreign(path, which="ema" if weights == "ema" else "net")
    size = _image_size(run, read.image_size, resolution)
    config = Config(
        dataset="",
        model=read.config,
        diffusion=ScheduleConfig(num_steps=read.num_steps),
        sample=SamplerConfig(num_steps=min(100, read.num_steps)),
    )
    return PretrainedNetwork(
        url=str(path.resolve()),
        checkpoint=path.stem if read.step is None else f"step{read.step}",
        weights=save({name: t.contiguous() for name, t in read.state_dict.items()}),
        config=config,
        channels=read.image_channels,
        image_size=size,
        num_classes=read.num_classes,
        augment=read.augment,
        omega_max=0.0,
        fingerprint="",
        samples=Storage(SAMPLES).url,
        notes=read.report,
    )


def open_diffusers(
    folder: Storage, run: str, weights: str, resolution: int | None
) -> PretrainedNetwork:
    """A folder of diffusers."""
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
        raise ValueError(f"run ({run}) is a folder of diffusers, but {error}") from error
    size = _image_size(run, read.image_size, resolution)
    config = Config(
        dataset="",
        backbone="unet" if isinstance(read.config, UNetConfig) else "dit",
        model=read.config,
        diffusion=read.schedule,
        sample=SamplerConfig(num_steps=min(100, read.schedule.num_steps)),
    )
    return PretrainedNetwork(
        url=read.url,
        checkpoint=folder.url.rpartition("/")[2],
        weights=save({name: t.contiguous() for name, t in read.state_dict.items()}),
        config=config,
        channels=read.channels,
        image_size=size,
        num_classes=read.num_classes,
        class_names=read.class_names,
        augment=False,
        omega_max=0.0,
        fingerprint=read.fingerprint,
        samples=Storage(SAMPLES).url,
        notes=read.notes,
    )
