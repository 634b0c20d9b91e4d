"""DDIM and DPM-Solver++ against the schedulers of diffusers, where that is installed."""

import pytest
import torch

from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.ddim import ddim
from cbdm_scale.sampling.dpm import dpm_solver
from cbdm_scale.sampling.steps import log_snr_subsequence, subsequence

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
SCHEDULE = LinearSchedule()
NOISE = rng.normal(0, "noise", torch.arange(4), 192).view(4, 3, 8, 8).double()
Y = torch.tensor([0, 1, 0, 1])
BETAS = SCHEDULE.beta.numpy()


def wild(x, t, y, omega=None, augment=None):
    """A smooth network whose predicted x_0 leaves [-1, 1] at many levels."""
    return torch.sin(2 * x) + 0.5 * x - 0.1 * y.view(-1, 1, 1, 1)


def run_scheduler(scheduler, steps, **options):
    x = NOISE
    for t in steps:
        e = wild(x, torch.full((4,), t), Y)
        x = scheduler.step(e, t, x, return_dict=False, **options)[0]
    return x


def assert_same(ours, theirs):
    """To float32, which diffusers rounds to; what is not clipped grows to about 100."""
    size = theirs.abs().max().item()
    torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=1e-4 * max(size, 1))


@pytest.mark.parametrize("clip", [True, False])
def test_ddim_is_that_of_diffusers(clip):
    diffusers = pytest.importorskip("diffusers", reason="the oracle: pip install .[oracle]")
    scheduler = diffusers.DDIMScheduler(
        trained_betas=BETAS,
        clip_sample=clip,
        set_alpha_to_one=True,
        timestep_spacing="linspace",
    )
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar  # its own are float32, which 1,000 steps show
    scheduler.set_timesteps(1000)  # its own spacing of fewer steps misses one end
    theirs = run_scheduler(scheduler, range(999, -1, -1), use_clipped_model_output=clip)
    ours = ddim(wild, NOISE, Y, schedule=SCHEDULE, num_steps=1000, clip=clip)
    assert_same(ours, theirs)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("spacing", ["uniform", "log_snr"])
@pytest.mark.parametrize("num_steps", [5, 25])
def test_dpm_solver_is_that_of_diffusers(num_steps, spacing, clip):
    diffusers = pytest.importorskip("diffusers", reason="the oracle: pip install .[oracle]")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        trained_betas=BETAS,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        thresholding=clip,
        dynamic_thresholding_ratio=1e-9,
        sample_max_value=1.0,
    )
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar
    steps = (
        subsequence(1000, num_steps)
        if spacing == "uniform"
        else log_snr_subsequence(SCHEDULE.alpha_bar, num_steps)
    )
    scheduler.set_timesteps(timesteps=steps)
    theirs = run_scheduler(scheduler, steps)
    ours = dpm_solver(
        wild, NOISE, Y, schedule=SCHEDULE, num_steps=num_steps, spacing=spacing, clip=clip
    )
    assert_same(ours, theirs)
