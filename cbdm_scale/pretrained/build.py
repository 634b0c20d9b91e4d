"""The network and the noise that a run's configuration names."""

from typing import Protocol

import torch
from torch import nn

from cbdm_scale.config.schema import Config
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.process import Process
from cbdm_scale.models.build import build


class ImageSpec(Protocol):
    """What a network must know of its images; data.manifest.Manifest is one."""

    @property
    def channels(self) -> int: ...

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        ...

    @property
    def num_classes(self) -> int:
        """K."""
        ...


def build_network(config: Config, image: ImageSpec) -> nn.Module:
    """The network of a run with fresh weights."""
    return build(
        config.model,
        image_channels=image.channels,
        image_size=image.image_size,
        num_classes=image.num_classes,
        num_steps=config.diffusion.num_steps,
        augment=config.data.tells_augmentation,
        omega=config.loss.tcfg,
    )


def make_process(config: Config, device: torch.device | str = "cpu") -> Process:
    """The noise of a run, for its losses and samplers."""
    return build_process(config.process, config.diffusion, config.edm, device)
