"""From the options of a run to its process."""

import torch

from cbdm_scale.diffusion.edm import EDM
from cbdm_scale.diffusion.options import EDMConfig, ProcessName, ScheduleConfig
from cbdm_scale.diffusion.process import Process
from cbdm_scale.diffusion.schedule import LinearSchedule


def build_process(
    name: ProcessName, schedule: ScheduleConfig, edm: EDMConfig, device: torch.device | str
) -> Process:
    """The process that ``name`` means, its constants on ``device``."""
    match name:
        case "ddpm":
            return LinearSchedule(schedule).to(device)
        case "edm":
            return EDM(edm)
