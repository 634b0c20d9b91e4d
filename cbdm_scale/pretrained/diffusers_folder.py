"""A folder of the library diffusers: a model, or a pipeline with its model and scheduler.

Only config.json and safetensors files are read; config.json decides whether the network is one
of ours (`cbdm_scale.pretrained.diffusers_unet`).
"""

from dataclasses import dataclass
from typing import Any

from safetensors.torch import load
from torch import Tensor

from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.models.options import DiTConfig, UNetConfig
from cbdm_scale.pretrained.diffusers_dit import DIT, dit_from_theirs
from cbdm_scale.pretrained.diffusers_unet import UNET, unet_from_theirs
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import clip

WEIGHTS = "diffusion_pytorch_model.safetensors"
PIPELINE, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
OURS = "cbdm_scale.json"
"""Beside a config.json that the export command wrote: what diffusers has no field for."""

LINEAR = {"beta_schedule": "linear", "prediction_type": "epsilon", "trained_betas": None}
"""Fields of a scheduler whose noise is DDPM's."""


@dataclass(frozen=True, kw_only=True)
class DiffusersModel:
    """What such a folder says, in this project's names."""

    url: str
    config: UNetConfig | DiTConfig
    schedule: ScheduleConfig
    channels: int
    image_size: int | None
    num_classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    """Of the data set; "" where nothing says it."""
    state_dict: dict[str, Tensor]
    notes: tuple[str, ...]


def is_diffusers(folder: Storage) -> bool:
    """Whether it is a folder of diffusers, of whatever kind."""
    if folder.exists(PIPELINE):
        return True
    about = folder.read_json("config.json") if folder.exists("config.json") else None
    return isinstance(about, dict) and "_class_name" in about


def read_diffusers(folder: Storage) -> DiffusersModel:
    """ValueError, naming the field, if the network or its noise is none of ours."""
    home, notes = folder, []
    if folder.exists(PIPELINE):
        parts = folder.read_json(PIPELINE)
        if latent := [name for name in ("vae", "vqvae") if name in parts]:
            raise ValueError(
                f"{PIPELINE} has a {latent[0]}: such a network draws codes, ours draw pixels."
            )
        there = [name for name in ("unet", "transformer") if name in parts]
        if not there:
            raise ValueError(f"{PIPELINE} has neither unet nor transformer.")
        home = folder.child(there[0])
    about = home.read_json("config.json")
    kind = about["_class_name"]
    if kind not in (UNET, DIT):
        raise ValueError(f"it is a {kind}: {UNET} and {DIT} can be taken over.")
    ours = home.read_json(OURS) if home.exists(OURS) else {}
    weights = _read_weights(home)
    config: UNetConfig | DiTConfig
    if kind == UNET:
        none_row = "none" in ours
        config, state = unet_from_theirs(about, weights, none_row=none_row)
        if not none_row:
            notes.append(
                f"note: {len(state['label.weight']) - 1} labels are taken for classes; the row "
                'for "none" is new and zero'
            )
    else:
        config, state, more = dit_from_theirs(about, weights)
        notes += more
    schedule, more = _read_schedule(folder, ours)
    size = about.get("sample_size")
    return DiffusersModel(
        url=home.url,
        config=config,
        schedule=schedule,
        channels=about["in_channels"],
        image_size=size if isinstance(size, int) else None,
        num_classes=len(state["label.weight"]) - 1,
        class_names=tuple(ours.get("class_names", ())),
        fingerprint=ours.get("fingerprint", ""),
        state_dict=state,
        notes=(f"read {kind} of {home.url}", *notes, *more),
    )


def _read_weights(home: Storage) -> dict[str, Tensor]:
    """One safetensors file, or several under an index."""
    index = f"{WEIGHTS}.index.json"
    files = [WEIGHTS]
    if home.exists(index):
        files = sorted(set(home.read_json(index)["weight_map"].values()))
        if outside := [file for file in files if "/" in file or "\\" in file]:
            raise ValueError(
                f"{index} names {clip(outside[0])}, which is not a file of its folder."
            )
    elif not home.exists(WEIGHTS):
        raise ValueError(
            f"{home.path(WEIGHTS)} does not exist. Weights are read from safetensors alone: "
            "save the model with safe_serialization=True."
        )
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= load(home.read_bytes(file))
    return weights


def _read_schedule(folder: Storage, ours: dict[str, Any]) -> tuple[ScheduleConfig, list[str]]:
    """The noise that it was trained with; without a scheduler, DDPM's, and a note."""
    if "diffusion" in ours:
        return ScheduleConfig(**ours["diffusion"]), []
    if not folder.exists(SCHEDULER):
        usual = ScheduleConfig()
        return usual, [
            f"assumed the noise of DDPM ({usual.num_steps} steps, beta {usual.beta_1:g} to "
            f"{usual.beta_T:g}, epsilon predicted): the folder has no scheduler"
        ]
    about = folder.read_json(SCHEDULER)
    for field, value in LINEAR.items():
        found = about.get(field, "absent" if value == "linear" else value)
        if found != value:
            raise ValueError(
                f"{SCHEDULER} has {field} {found!r}: the noise must be DDPM's, {value!r}."
            )
    return ScheduleConfig(
        num_steps=about.get("num_train_timesteps", 1000),
        beta_1=about.get("beta_start", 1e-4),
        beta_T=about.get("beta_end", 0.02),
    ), []
