"""Our U-Net or DiT as a folder of the library diffusers, and a check that it computes the same.

diffusers/unet/       config.json, weights, and cbdm_scale.json: what they have no field for; a
                      DiT's are in diffusers/transformer/
diffusers/scheduler/  the noise, and the sampler with DDIM's steps
"""

import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.models.options import DiTConfig, UNetConfig
from cbdm_scale.pretrained.diffusers_dit import DIT, config_to_dit, dit_to_theirs
from cbdm_scale.pretrained.diffusers_folder import OURS, WEIGHTS
from cbdm_scale.pretrained.diffusers_unet import UNET, config_to_unet, to_theirs, unet_pairs
from cbdm_scale.pretrained.network import PretrainedNetwork
from cbdm_scale.pretrained.transfer import ADDED
from cbdm_scale.sampling.guidance import guide
from cbdm_scale.sampling.steps import predict_x0

TOLERANCE = 1e-5
"""Largest difference of an image in [-1, 1] after one denoising step."""

LAYERS = {name.rstrip(".") for name in ADDED}
"""Layers that ours may have and theirs never has."""

OMEGA = 1.0
"""Guidance strength of the check; diffusers would say guidance_scale 2."""


def scheduler_config(pretrained: PretrainedNetwork) -> dict[str, Any]:
    """scheduler_config.json of DDIMScheduler with this noise and our steps."""
    noise = pretrained.config.diffusion
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.42.1",
        "num_train_timesteps": noise.num_steps,
        "beta_start": noise.beta_1,
        "beta_end": noise.beta_T,
        "beta_schedule": "linear",
        "prediction_type": "epsilon",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "linspace",
    }


@dataclass(frozen=True, kw_only=True)
class _Twin:
    """The network under their names."""

    kind: str
    """Their class."""

    part: str
    """Its folder in a pipeline of theirs."""

    about: dict[str, Any]
    """config.json."""

    weights: dict[str, Tensor]


def _find_twin(pretrained: PretrainedNetwork) -> _Twin:
    """ValueError if theirs has no such network."""
    config, weights = pretrained.config.model, pretrained.tensors
    if pretrained.config.process != "ddpm":
        raise ValueError(
            f"the network is of the process {pretrained.config.process}: it answers with EDM's "
            "F, which no scheduler there takes from a network"
        )
    image: dict[str, int] = {
        "image_channels": pretrained.spec.channels,
        "image_size": pretrained.spec.image_size,
        "num_classes": pretrained.spec.num_classes,
    }
    if isinstance(config, UNetConfig):
        pairs = unet_pairs(list(weights), config.channels, True)
        about, theirs = config_to_unet(config, **image), to_theirs(pairs, weights)
        return _Twin(kind=UNET, part="unet", about=about, weights=theirs)
    if isinstance(config, DiTConfig):
        about, theirs = config_to_dit(config, **image), dit_to_theirs(config, weights)
        return _Twin(kind=DIT, part="transformer", about=about, weights=theirs)
    raise ValueError(
        f"the network is a {type(config).__name__}: only the U-Net and DiT have a twin there"
    )


def write_diffusers(pretrained: PretrainedNetwork, folder: Path) -> list[str]:
    """Write it; lines about it, for people. ValueError if theirs has no such network."""
    twin = _find_twin(pretrained)
    home, scheduler = folder / twin.part, folder / "scheduler"
    home.mkdir(parents=True, exist_ok=True)
    scheduler.mkdir(exist_ok=True)
    own = {name: tensor.clone() for name, tensor in twin.weights.items()}  # none is shared
    save_file(own, home / WEIGHTS, metadata={"format": "pt"})
    write_json(home / OURS, _extras(pretrained))
    write_json(scheduler / "scheduler_config.json", scheduler_config(pretrained))
    write_json(home / "config.json", twin.about)  # last: now it is whole
    left = sorted({name.partition(".")[0] for name in pretrained.tensors} & LAYERS)
    return [
        f'`{twin.kind}.from_pretrained("{folder.name}", subfolder="{twin.part}")` and its '
        f"scheduler; the last label, {pretrained.spec.num_classes}, is no label, "
        "guidance_scale is s = 1 + omega; our DDIM is step(.., use_clipped_model_output=True)",
        *(f"left the layer {name}, which {twin.kind} has no place for" for name in left),
    ]


def _extras(pretrained: PretrainedNetwork) -> dict[str, Any]:
    """What diffusers has no field for."""
    return {
        "none": pretrained.spec.num_classes,
        "class_names": list(pretrained.class_names),
        "fingerprint": pretrained.fingerprint,
        "diffusion": asdict(pretrained.config.diffusion),
        "guidance_scale": "s = 1 + omega, in s e + (1 - s) e_none",
    }


def write_json(file: Path, value: Any) -> None:
    """Write plain data for people to read."""
    file.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


# ----------------------------------------------------------------------------
# The check.


def check_diffusers(pretrained: PretrainedNetwork, folder: Path) -> str:
    """One guided denoising step here and there, from what was written. A line about it.

    ValueError if they differ by more than ``TOLERANCE``.
    """
    if importlib.util.find_spec("diffusers") is None:
        return "not checked: diffusers is not installed"
    net = pretrained.build()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, *pretrained.spec.image_shape, generator=generator)  # (N, C, H, W)
    y = torch.arange(4) % pretrained.spec.num_classes
    none, schedule = pretrained.spec.num_classes, LinearSchedule(pretrained.config.diffusion)
    guided, t = guide(net, OMEGA, none), schedule.num_steps // 2
    ab = float(schedule.alpha_bar[t])
    ab_prev = float(schedule.alpha_bar[t - 1]) if t else 1.0
    with torch.no_grad():
        x0 = predict_x0(guided, noise, t, ab, y, clip=True)
        e = (noise - ab**0.5 * x0) / (1 - ab) ** 0.5
        ours = ab_prev**0.5 * x0 + (1 - ab_prev) ** 0.5 * e  # as in sampling/ddim.py
        theirs = _their_step(folder, noise, t, y, none)
    error = float((ours - theirs).abs().max())
    if not error < TOLERANCE:
        raise ValueError(
            f"diffusers makes another image of this network: it differs by {error:.2g} after "
            f"one step, more than {TOLERANCE:g}. Please report it; {folder} is not to be used."
        )
    return (
        f"checked: one denoising step in diffusers differs by {error:.1g} (guidance_scale "
        f"{1 + OMEGA:g} there, omega {OMEGA:g} here)"
    )


def _their_step(folder: Path, x: Tensor, t: int, y: Tensor, none: int) -> Tensor:
    """From level t to t - 1 by DDIM, by what the folder says: (N, C, H, W)."""
    import diffusers  # type: ignore[import-not-found]

    [home] = [file.parent for file in folder.glob("*/config.json")]
    kind = json.loads((home / "config.json").read_text())["_class_name"]
    net = getattr(diffusers, kind).from_pretrained(home).eval()
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(scheduler.config.num_train_timesteps)
    scale = 1 + OMEGA
    steps = torch.full_like(y, t)  # a DiT takes no number
    e = net(x, steps, class_labels=y).sample
    e_none = net(x, steps, class_labels=torch.full_like(y, none)).sample
    e = scale * e + (1 - scale) * e_none
    found: Tensor = scheduler.step(e, t, x, use_clipped_model_output=True).prev_sample
    return found
