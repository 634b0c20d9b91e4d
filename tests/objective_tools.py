"""Objectives and processes to test, a network in a line, batches."""

from dataclasses import replace

import pytest
import torch

from cbdm_scale.diffusion.edm import EDM
from cbdm_scale.diffusion.options import EDMConfig, ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig

K, T, SHAPE = 4, 1000, (3, 4, 4)
COUNTS = torch.tensor([60, 25, 10, 5])
CPU = torch.device("cpu")
WEIGHTS = torch.tensor([0.5, -1.0, 0.25, 2.0, 1.5])  # by label; the last is "none"

PROCESSES = {
    "ddpm": LinearSchedule(ScheduleConfig(num_steps=T)),
    "edm": EDM(),
    "edm of other data": EDM(EDMConfig(p_mean=-0.4, sigma_data=0.8)),
}
OBJECTIVES = {
    "ddpm": {"name": "ddpm", "p_uncond": 0.3},
    "cbdm": {},
    "cbdm of all labels": {"tau": 0.3, "gamma": 2.0, "p_uncond": 0.0},
    "cbdm without commitment": {"gamma": 0.0, "label_power": 0.0, "p_uncond": 0.5},
    "cbdm of a share": {"tau": 0.6, "reg_share": 0.4, "p_uncond": 0.3},
    "ddpm_tcfg": {"name": "ddpm", "tcfg": True, "p_uncond": 0.3},
    "cbdm_tcfg": {"tcfg": True, "omega_max": 3.0, "tcfg_gamma": 0.7, "p_uncond": 0.5},
    "cbdm_tcfg of a share": {"tcfg": True, "reg_share": 0.5, "gamma": 0.5},
}
FURTHER_TERMS = {
    "delta_fm": {"delta_fm": 0.05},
    "t2h": {"t2h": True},
    "two_mask": {"two_mask": 1.0},
    "ccua_align": {"ccua_align": 1.0},
    "ccua_contrast": {"ccua_contrast": 1.0},
    "coral": {"coral": 0.5},
    "dispersive": {"dispersive": 0.25},
}
"""Terms that any objective may have besides, as their sources have them."""
every_process = pytest.mark.parametrize("process", PROCESSES)
every_objective = pytest.mark.parametrize("objective", OBJECTIVES)
every_further_term = pytest.mark.parametrize("term", FURTHER_TERMS)


def column(v):
    return v.view(-1, 1, 1, 1)


def fake_net(x, level, y, omega=None, augment=None, weights=WEIGHTS, features=False):
    """A network whose every argument shows in what it returns."""
    out = 0.5 * x + column(weights[y]) * (1 + x.sin()) - 0.001 * column(level)
    if omega is not None:
        out = out + column(omega) * (x + 0.3 * column(weights[y]))
    return (out, out.flatten(2).cos(), out.flatten(1).sin()) if features else out


def make_batch(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x0 = torch.rand((n, *SHAPE), generator=rng) * 2 - 1
    return x0, torch.randint(K, (n,), generator=rng)


def build(n=0, process="ddpm", shape=SHAPE, **options):
    """Objective and draws of a batch of n images."""
    loss, drawer = build_loss(LossConfig(**options), PROCESSES[process], COUNTS, 5, max(n, 1))
    return loss, drawer(torch.arange(n), shape, CPU)


def with_drawn(draws, **changed):
    return replace(draws, term_draws=draws.term_draws | changed)


def rows_of(draws):
    """The images of which the regulariser, and those of which TCFG, has predictions made."""
    everybody = torch.arange(len(draws.t))
    seen = draws.term_draws.get("seen", everybody[:0])
    taught = draws.term_draws.get("omega", everybody[:0])
    return draws.term_draws.get("rows", everybody[: len(seen)]), everybody[: len(taught)]


def weights_of(draws):
    """What each image weighs in the regulariser (N,), 0 where it is not seen, and in TCFG."""
    seen, taught = rows_of(draws)
    weights = torch.zeros(len(draws.t))
    weights[seen] = draws.term_draws.get("seen", weights[:0])
    return weights, (~draws.dropped).float() if len(taught) else torch.zeros(len(draws.t))
