"""Training losses of "Class-Balancing Diffusion Models" (Qin et al., CVPR 2023).

A loss is called as ``loss(net, x0, y, draws)`` and returns per-sample terms: name -> (N,).
It draws nothing itself: `Draws` holds the random numbers of these images. Reduction, logging
and the cluster belong to the train loop.

    options    what a run says of its objective
    draws      the random numbers of a batch
    predict    all predictions of a batch in one network call
    ddpm       Equation 1
    cbdm       Equation 4, Algorithm 1
    tcfg       Equations 32 and 33, which either of them may add
    build      from options to loss
"""

from cbdm_scale.losses.build import Loss, build_loss
from cbdm_scale.losses.cbdm import CBDMLoss, cbdm_terms
from cbdm_scale.losses.ddpm import DDPMLoss
from cbdm_scale.losses.draws import Drawer, Draws
from cbdm_scale.losses.options import LossConfig, LossName
from cbdm_scale.losses.predict import mean_sq
from cbdm_scale.losses.tcfg import TCFG, tcfg_terms

__all__ = [
    "TCFG",
    "CBDMLoss",
    "DDPMLoss",
    "Drawer",
    "Draws",
    "Loss",
    "LossConfig",
    "LossName",
    "build_loss",
    "cbdm_terms",
    "mean_sq",
    "tcfg_terms",
]
