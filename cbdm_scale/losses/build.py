"""From the options of a run to its objective."""

from collections.abc import Callable

from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.labels import class_probs
from cbdm_scale.diffusion.process import Process
from cbdm_scale.losses.cbdm import CBDM
from cbdm_scale.losses.ddpm import DDPM
from cbdm_scale.losses.draws import Drawer
from cbdm_scale.losses.objective import Objective
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.losses.tcfg import TCFG
from cbdm_scale.losses.term import Draws, Term

Loss = Callable[[Net, Tensor, Tensor, Draws], dict[str, Tensor]]


def build_loss(
    config: LossConfig, process: Process, counts: Tensor, seed: int, batch_size: int
) -> tuple[Objective, Drawer]:
    """The objective that ``config`` names and what draws for it.

    counts (K,) training images of each class, from which q_Y is made: ValueError if one is 0.
    batch_size: images of a step, of all ranks together.
    """
    probs, null_label = class_probs(counts, config.label_power), len(counts)
    terms: list[Term] = [DDPM()]
    if config.regularises:
        cbdm = CBDM(process.num_steps, probs, config.tau, config.gamma, config.reg_share)
        terms.append(cbdm)
    if config.tcfg:
        terms.append(TCFG(null_label, config.tcfg_gamma, config.omega_max))
    objective = Objective(process, null_label, tuple(terms))
    return objective, Drawer(process, objective.terms, config.p_uncond, seed, batch_size)
