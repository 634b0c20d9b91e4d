"""What is drawn for the losses: the right frequencies, from the image alone.

Shapes: C, H, W = image, K = classes, T = steps.
"""

import pytest
import torch
from objective_tools import (
    COUNTS,
    CPU,
    PROCESSES,
    SHAPE,
    K,
    every_process,
    rows_of,
    weights_of,
)

from cbdm_scale.data.plan import slots
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.labels import class_probs
from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.draws import Drawer
from cbdm_scale.losses.options import LossConfig


def drawer(process="ddpm", seed=5, batch_size=48, **options):
    return build_loss(LossConfig(**options), PROCESSES[process], COUNTS, seed, batch_size)[1]


def draw(n, batch_size=None, **options):
    return drawer(batch_size=batch_size or n, **options)(torch.arange(n), (1, 1, 1), CPU)


def numbers_of(draws):
    """Every number of an image by name, (N, ...) each; y' only of a whole regulariser."""
    of_image = {"t": draws.t, "eps": draws.eps, "dropped": draws.dropped}
    of_image["seen"] = weights_of(draws)[0]
    for name in draws.term_draws.keys() - {"rows", "seen"}:
        of_image[name] = draws.term_draws[name]
    if "rows" in draws.term_draws:
        y_alt = torch.full((len(draws.t),), -1)
        of_image["y_alt"] = y_alt.index_copy(0, draws.term_draws["rows"], of_image["y_alt"])
        of_image["y_alt"][of_image["seen"] == 0] = -1
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
    steps = Drawer(LinearSchedule(ScheduleConfig(num_steps=50)), (), 0.1, 5, 64)
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
    options = {"p_uncond": 0.5, "tcfg": True}
    found = numbers_of(draw(20_000, **options))
    seen = numbers_of(draw(20_000, batch_size=2, reg_share=0.5, **options))["seen"] > 0
    kept = ~found["dropped"]
    del found["seen"]
    everybody = torch.stack([v.flatten().double() for v in found.values()])
    del found["dropped"]
    among_kept = [seen[kept], *(v.flatten()[kept] for v in found.values())]
    for numbers in (everybody, torch.stack([v.double() for v in among_kept])):
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


@every_process
def test_all_numbers_of_one_call_are_those_of_single_calls(process):
    images, n, seed = torch.arange(7, 7 + 48), 48, 5
    draws = drawer(process, tcfg=True, omega_max=3.0, label_power=0.5)(images, SHAPE, CPU)

    def u(purpose):
        return rng.uniform(seed, purpose, images)[:, 0]

    assert torch.equal(draws.t, PROCESSES[process].step(u("timestep")))
    assert torch.equal(draws.dropped, u("label drop") < 0.1)
    assert torch.equal(draws.term_draws["omega"], (3.0 * u("omega")).float())
    cdf = class_probs(COUNTS, 0.5).cumsum(0)
    assert torch.equal(
        draws.term_draws["y_alt"], torch.searchsorted(cdf, u("other label") * cdf[-1])
    )
    eps = rng.normal(seed, "noise", images, 48).view(n, *SHAPE)
    assert torch.equal(draws.eps, eps)


# ----------------------------------------------------------------------------
# One piece.


def assert_same(one, other):
    ours, theirs = numbers_of(one), numbers_of(other)
    assert ours.keys() == theirs.keys()
    for name, numbers in ours.items():
        assert torch.equal(numbers, theirs[name]), name


@pytest.mark.parametrize("num_ranks", [1, 3, 48])
def test_a_later_step_may_be_written_into_the_memory_of_one_before(num_ranks):
    """As a captured step does: views are all that is made of it, and the noise."""
    own = drawer("edm", p_uncond=0.3, reg_share=0.4, tcfg=True)
    first, later = (slots(start, 48, 0, num_ranks) for start in (0, 96))
    numbers = torch.randn(48 // num_ranks, 9)
    before, after = (own.on_host(images, numbers) for images in (first, later))
    assert before.layout == after.layout
    for name, array in before.arrays().items():
        assert array.data_ptr() % array.itemsize == 0, name
        assert array.untyped_storage().data_ptr() == before.data.data_ptr()
    before.data.copy_(after.data)
    found = own.on_device(before, SHAPE)
    assert_same(found, own(later, SHAPE, CPU))
    assert torch.equal(found.augment, after.arrays()["augment"])


def test_the_piece_moves_as_a_whole():
    packed = drawer(tcfg=True).on_host(torch.arange(8), torch.zeros(8, 9))
    moved = packed.to(torch.device("meta"))
    assert moved.layout == packed.layout and moved.data.is_meta
    names = {"images", "t", "dropped", "augment", "y_alt", "seen", "omega"}
    assert moved.arrays().keys() == names and all(v.is_meta for v in moved.arrays().values())


def test_two_terms_do_not_draw_for_one_purpose():
    term = drawer(tcfg=True).terms[-1]
    with pytest.raises(AssertionError, match="two terms draw"):
        Drawer(PROCESSES["ddpm"], (term, term), 0.1, 5, 8)(torch.arange(8), SHAPE, CPU)


# ----------------------------------------------------------------------------
# Who is regularised.


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25, 0.3, 0.01])
def test_a_share_is_a_window_of_the_step_of_which_every_rank_has_as_much(share):
    """And every micro-batch whose images are equally spaced, as those of a rank are."""
    batch_size, num_steps = 24, 5
    size = max(1, round(share * batch_size))
    own = drawer(batch_size=batch_size, reg_share=share, p_uncond=0.3)
    for first in range(0, num_steps * batch_size, batch_size):
        start = int(rng.uniform(5, "window", torch.tensor([first])).item() * batch_size)
        inside = torch.zeros(batch_size, dtype=torch.bool)
        inside[[(start + j) % batch_size for j in range(size)]] = True
        images = torch.arange(first, first + batch_size)
        kept = rng.uniform(5, "label drop", images)[:, 0] >= 0.3
        expected = (inside & kept) * (batch_size / size)
        for parts in (1, 2, 3, 4, 6, 8, 24):
            for part in range(parts):
                mine = own(slots(first, batch_size, part, parts), (1, 1, 1), CPU)
                torch.testing.assert_close(weights_of(mine)[0], expected[part::parts])
                assert len(rows_of(mine)[0]) == -(-size // parts)


def test_windows_begin_anywhere():
    n = 20_000
    seen = weights_of(draw(n, batch_size=5, reg_share=0.2, p_uncond=0.0))[0].view(-1, 5)
    assert ((seen == 5).sum(1) == 1).all()
    counts = (seen > 0).sum(0)
    assert (counts - n / 25).abs().max() < 5 * (n / 25) ** 0.5


def test_without_a_share_all_are_predicted_and_dropped_labels_weigh_nothing():
    whole = draw(4000, p_uncond=0.2)
    assert "rows" not in whole.term_draws
    assert torch.equal(whole.term_draws["seen"], (~whole.dropped).float())


def test_tau_zero_and_ddpm_pay_for_no_second_prediction():
    for options in ({"tau": 0.0}, {"name": "ddpm"}):
        assert not draw(200, **options).term_draws


def test_a_class_without_images_is_an_error():
    with pytest.raises(ValueError, match="at least one image; 1 have none"):
        build_loss(LossConfig(), LinearSchedule(), torch.tensor([5, 0, 1]), 0, 8)
