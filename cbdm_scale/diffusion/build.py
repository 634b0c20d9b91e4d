"""From the options of a run to its process."""

import torch

from cbdm_scale.diffusion.edm import EDM
from cbdm_scale.diffusion.options import NoiseConfig
from cbdm_scale.diffusion.process import Process
from cbdm_scale.diffusion.schedule import LinearSchedule


def build_process(noise: NoiseConfig, device: torch.device | str = "cpu") -> Process:
    """The process of a run, for its losses and samplers, its constants on ``device``."""
    match noise.process:
        case "ddpm":
            return LinearSchedule(noise.schedule).to(device)
        case "edm":
            return EDM(noise.edm)
