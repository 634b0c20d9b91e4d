"""What is drawn for the losses: the right frequencies, from the image alone.

Shapes: C, H, W = image, K = classes, T = steps.
"""

import pytest
import torch
from objective_tools import COUNTS, CPU, PROCESSES, SHAPE, K, every_process

from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.draws import Drawer
from cbdm_scale.losses.options import LossConfig


def drawer(process="ddpm", seed=5, **options):
    return build_loss(LossConfig(**options), PROCESSES[process], COUNTS, seed)[1]


def draw(n, **options):
    return drawer(**options)(torch.arange(n), (1, 1, 1), CPU)


def numbers_of(draws):
    """Every number of an image by name, (N, ...) each."""
    of_image = {"t": draws.t, "eps": draws.eps, "dropped": draws.dropped}
    for name in ("y_alt", "omega"):
        of_image[name] = draws.term_draws[name]
    for name, rows in (("kept", draws.kept), ("seen", draws.term_draws["rows"])):
        of_image[name] = torch.zeros(len(draws.t)).index_fill(0, rows, 1)
    return of_image


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_other_labels_have_the_frequencies_of_the_label_power(power):
    n = 20_000
    y_alt = draw(n, label_power=power).term_draws["y_alt"]
    expected = COUNTS.double() ** power / (COUNTS.double() ** power).sum()
    found = torch.bincount(y_alt, minlength=K) / n
    assert found.tolist() == pytest.approx(expected.tolist(), abs=5 * 0.5 / n**0.5)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_labels_are_dropped_with_probability_p_uncond(p):
    n = 20_000
    found = draw(n, p_uncond=p).dropped.double().mean()
    assert float(found) == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)


def test_timesteps_are_uniform_over_0_to_T_minus_1():
    steps = Drawer(LinearSchedule(ScheduleConfig(num_steps=50)), (), 0.1, seed=5)
    t = steps(torch.arange(20_000), (1, 1, 1), CPU).t
    counts = torch.bincount(t)
    assert len(counts) == 50  # 0..T-1: none above, the last one among them
    assert ((counts - 400).abs() < 5 * 20).all()


def test_under_edm_a_step_is_the_share_of_training_with_less_noise():
    t = draw(20_000, process="edm").t
    order = PROCESSES["edm"].sigma(t).argsort()
    ranks = torch.empty(20_000).double()
    ranks[order] = torch.arange(20_000).double() / 20_000
    assert (t > 0).all() and (t < 1).all() and t.dtype == torch.float64
    torch.testing.assert_close(t, ranks, rtol=0, atol=0.02)
    torch.testing.assert_close(t[order], t.sort().values, rtol=0, atol=0)


def test_strengths_are_uniform_up_to_omega_max():
    omega = draw(20_000, tcfg=True, omega_max=3.0).term_draws["omega"]
    counts = torch.histc(omega, 6, 0, 3)
    assert (counts - 20_000 / 6).abs().max() < 5 * (20_000 / 6) ** 0.5
    assert omega.dtype == torch.float32


def test_the_draws_of_one_image_are_independent():
    draws = draw(20_000, p_uncond=0.5, reg_share=0.5, tcfg=True)
    found = {name: v.flatten().double() for name, v in numbers_of(draws).items()}
    kept = found.pop("kept").bool()
    seen = found.pop("seen")
    everybody = torch.stack(list(found.values()))
    among_kept = torch.stack([seen, *(v for n, v in found.items() if n != "dropped")])[:, kept]
    for numbers in (everybody, among_kept):
        correlation = torch.corrcoef(numbers) - torch.eye(len(numbers))
        assert (correlation.abs() < 5 / numbers.shape[1] ** 0.5).all()


@every_process
def test_the_numbers_of_an_image_depend_on_the_image_alone(process):
    """For any split of a batch: into ranks, into micro-batches, in any order."""
    own = drawer(process, p_uncond=0.3, reg_share=0.5, tcfg=True)
    images = torch.arange(10**10, 10**10 + 48)
    whole = numbers_of(own(images, SHAPE, CPU))
    splits = [torch.tensor([17]), torch.randperm(48)]
    for world_size in (2, 3, 4, 8):
        splits += [torch.arange(rank, 48, world_size) for rank in range(world_size)]
    for rows in splits:
        for name, part in numbers_of(own(images[rows], SHAPE, CPU)).items():
            assert torch.equal(part, whole[name][rows]), name


def test_images_and_seeds_draw_different_numbers():
    one, other = draw(100), draw(100, seed=6)
    assert (one.t == other.t).sum() < 10 and not (one.eps == other.eps).any()
    assert len(one.eps.unique()) > 95 and len(one.t.unique()) > 50


def test_ddpm_and_edm_draw_the_same_but_for_the_step():
    ours, theirs = (numbers_of(draw(32, process=p, tcfg=True)) for p in ("edm", "ddpm"))
    assert torch.equal((ours.pop("t") * 1000).long(), theirs.pop("t"))
    for name, numbers in ours.items():
        assert torch.equal(numbers, theirs[name]), name


def test_draws_move_together():
    meta = torch.device("meta")
    moved = drawer(tcfg=True)(torch.arange(8), (1, 1, 1), CPU, torch.zeros(8, 9)).to(meta)
    fields = [moved.t, moved.eps, moved.dropped, moved.kept, moved.augment]
    assert {f.device for f in [*fields, *moved.term_draws.values()]} == {meta}
    assert moved.term_draws.keys() == {"y_alt", "rows", "omega"}


# ----------------------------------------------------------------------------
# Who is regularised.


def test_a_share_of_the_regulariser_costs_that_share():
    n = 4000
    for share in (0.1, 0.5):
        m = len(draw(n, reg_share=share, p_uncond=0.2).term_draws["rows"])
        assert m == pytest.approx(share * 0.8 * n, rel=0.1)
    whole = draw(n, p_uncond=0.2)
    assert torch.equal(whole.term_draws["rows"], whole.kept)
    assert torch.equal(whole.kept, (~whole.dropped).nonzero().flatten())


def test_tau_zero_and_ddpm_pay_for_no_second_prediction():
    assert not len(draw(200, tau=0.0).term_draws["rows"])
    assert not draw(200, name="ddpm").term_draws


def test_a_class_without_images_is_an_error():
    with pytest.raises(ValueError, match=r"at least one image; these have none: \[1\]"):
        build_loss(LossConfig(), LinearSchedule(), torch.tensor([5, 0, 1]), seed=0)
