"""From the options of a run to its process."""

import torch

from cbdm_scale.diffusion.edm import EDM, EDMConfig
from cbdm_scale.diffusion.process import Process, ProcessName
from cbdm_scale.diffusion.schedule import LinearSchedule, ScheduleConfig


def build_process(
    name: ProcessName, schedule: ScheduleConfig, edm: EDMConfig, device: torch.device | str
) -> Process:
    """The process that ``name`` means, its constants on ``device``."""
    match name:
        case "ddpm":
            return LinearSchedule(schedule).to(device)
        case "edm":
            return EDM(edm)
