"""Networks as the library diffusers would have saved them, made without it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from cbdm_scale.models.build import build
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.diffusers_unet import config_to_unet, to_theirs, unet_pairs

CONFIG = UNetConfig(channels=16, multipliers=(1, 2), num_blocks=1, attention=(1,), groups=4)
SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "num_train_timesteps": 500,
}


def random_net(
    config: UNetConfig, *, channels: int = 1, size: int = 8, classes: int = 10
) -> nn.Module:
    net = build(
        NetworkSpec(model=config, channels=channels, image_size=size, num_classes=classes)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def save_theirs(folder: Path, net: Any, **fields: Any) -> str:
    """A model's folder: config.json with these fields changed, and the weights."""
    folder.mkdir(parents=True)
    about = config_to_unet(net.config, image_channels=1, image_size=8, num_classes=10)
    (folder / "config.json").write_text(json.dumps(about | fields))
    pairs = unet_pairs(list(net.state_dict()), net.config.channels, True)
    weights = to_theirs(pairs, net.state_dict())
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    return str(folder)
