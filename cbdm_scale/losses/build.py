"""From the options of a run to its objective."""

from collections.abc import Callable

from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.labels import class_probs
from cbdm_scale.diffusion.process import Process
from cbdm_scale.losses.cbdm import CBDMLoss
from cbdm_scale.losses.ddpm import DDPMLoss
from cbdm_scale.losses.draws import Drawer, Draws
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.losses.tcfg import TCFG

Loss = Callable[[Net, Tensor, Tensor, Draws], dict[str, Tensor]]


def build_loss(
    config: LossConfig, process: Process, counts: Tensor, seed: int
) -> tuple[Loss, Drawer]:
    """The loss that ``config`` names and what draws for it. ``counts`` (K,) training images."""
    probs = class_probs(counts, config.label_power)
    drawer = Drawer(config, process, probs, seed)
    num_classes = len(counts)
    tcfg = TCFG(num_classes, config.tcfg_gamma) if config.tcfg else None
    if config.name == "ddpm":
        return DDPMLoss(process, num_classes, tcfg), drawer
    cbdm = CBDMLoss(process, num_classes, config.tau, config.gamma, config.reg_share, tcfg)
    return cbdm, drawer
