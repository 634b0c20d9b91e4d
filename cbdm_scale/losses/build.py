"""From the options of a run to its objective."""

from collections.abc import Callable

from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.labels import class_probs
from cbdm_scale.diffusion.process import Process
from cbdm_scale.losses.cbdm import CBDM
from cbdm_scale.losses.ccua import Alignment, Contrast
from cbdm_scale.losses.coral import Coral
from cbdm_scale.losses.ddpm import DDPM
from cbdm_scale.losses.delta_fm import DeltaFM
from cbdm_scale.losses.dispersive import Dispersive
from cbdm_scale.losses.distillation import Distillation
from cbdm_scale.losses.draws import Drawer
from cbdm_scale.losses.objective import Objective
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.losses.t2h import T2H
from cbdm_scale.losses.tcfg import TCFG
from cbdm_scale.losses.term import Draws, Term
from cbdm_scale.losses.two_mask import TwoMask, class_weights

Loss = Callable[[Net, Tensor, Tensor, Draws], dict[str, Tensor]]


def build_loss(
    config: LossConfig,
    process: Process,
    counts: Tensor,
    seed: int,
    batch_size: int,
    teacher: Net | None = None,
) -> tuple[Objective, Drawer]:
    """The objective that ``config`` names and what draws for it.

    counts (K,) training images of each class, from which q_Y is made: ValueError if one is 0.
    batch_size: images of a step, of all ranks together. teacher: of a second stage, frozen.
    """
    probs, null_label = class_probs(counts, config.label_power), len(counts)
    if config.distils:
        assert teacher is not None, "a second stage learns from a teacher"
        alone = Objective(
            process, null_label, (Distillation(teacher, null_label, config.omega_max),)
        )
        return alone, Drawer(process, alone.terms, config.p_uncond, seed, batch_size)
    terms: list[Term] = [DDPM()]
    if config.regularises:
        cbdm = CBDM(process.num_steps, probs, config.tau, config.gamma, config.reg_share)
        terms.append(cbdm)
    if config.tcfg:
        terms.append(TCFG(null_label, config.tcfg_gamma, config.omega_max))
    if config.delta_fm:
        terms.append(DeltaFM(config.delta_fm))
    if config.t2h:
        terms.append(T2H(counts))
    if config.two_mask:
        weights = class_weights(counts, config.two_mask, config.two_mask_diversity)
        terms.append(TwoMask(weights))
    if config.ccua_align:
        terms.append(Alignment(process.num_steps, null_label, config.ccua_align))
    if config.ccua_contrast:
        terms.append(Contrast(process.num_steps, null_label, config.ccua_contrast))
    if config.coral:
        terms.append(Coral(process.num_steps, config.coral, config.coral_temperature))
    if config.dispersive:
        terms.append(Dispersive(config.dispersive))
    objective = Objective(process, null_label, tuple(terms))
    return objective, Drawer(process, objective.terms, config.p_uncond, seed, batch_size)
