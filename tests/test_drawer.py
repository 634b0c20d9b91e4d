"""What is drawn for the losses: the right frequencies, from the image alone. Their options.

Shapes: C, H, W = image, K = classes, T = steps.
"""

import pytest
import torch

from cbdm_scale.diffusion.labels import class_probs
from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.draws import Drawer
from cbdm_scale.losses.options import LossConfig

K, T, SHAPE = 4, 1000, (3, 4, 4)
COUNTS = torch.tensor([60, 25, 10, 5])
STEPS = LinearSchedule(ScheduleConfig(num_steps=T))
CPU = torch.device("cpu")


def draw(n, *, seed=5, **options):
    _, drawer = build_loss(LossConfig(**options), LinearSchedule(), COUNTS, seed)
    return drawer(torch.arange(n), (1, 1, 1), CPU)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_other_labels_have_the_frequencies_of_the_label_power(power):
    n = 20_000
    found = torch.bincount(draw(n, label_power=power).y_alt, minlength=K) / n
    expected = COUNTS.double() ** power / (COUNTS.double() ** power).sum()
    assert found.tolist() == pytest.approx(expected.tolist(), abs=5 * 0.5 / n**0.5)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_labels_are_dropped_with_probability_p_uncond(p):
    n = 20_000
    found = draw(n, p_uncond=p).dropped.double().mean()
    assert float(found) == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)


def test_timesteps_are_uniform_over_0_to_T_minus_1():
    drawer = Drawer(
        LossConfig(), LinearSchedule(ScheduleConfig(num_steps=50)), class_probs(COUNTS, 1), 5
    )
    t = drawer(torch.arange(20_000), (1, 1, 1), CPU).t
    counts = torch.bincount(t)
    assert len(counts) == 50  # 0..T-1: none above, the last one among them
    assert ((counts - 400).abs() < 5 * 20).all()


def test_the_draws_of_one_image_are_independent():
    draws = draw(20_000, p_uncond=0.5, reg_share=0.5)
    seen = torch.zeros(20_000)
    seen[draws.rows] = 1
    kept = ~draws.dropped
    numbers = torch.stack([draws.t, draws.y_alt, draws.eps.flatten(), seen]).double()
    correlation = torch.corrcoef(numbers[:, kept]) - torch.eye(4)
    assert (correlation.abs() < 5 / 10_000**0.5).all()
    dropped = torch.stack([draws.dropped, draws.t, draws.y_alt, draws.eps.flatten()]).double()
    assert ((torch.corrcoef(dropped) - torch.eye(4)).abs() < 5 / 20_000**0.5).all()


def test_the_numbers_of_an_image_depend_on_the_image_alone():
    drawer = Drawer(LossConfig(p_uncond=0.3, reg_share=0.5), STEPS, class_probs(COUNTS, 1), 5)
    images = torch.arange(10**10, 10**10 + 48)
    whole = drawer(images, SHAPE, CPU)
    for rows in (torch.arange(1, 48, 3), torch.tensor([17]), torch.randperm(48)):
        part = drawer(images[rows], SHAPE, CPU)
        for name in ("t", "eps", "dropped", "y_alt"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rows]), name
        assert set(rows[part.rows].tolist()) == set(whole.rows.tolist()) & set(rows.tolist())


def test_images_and_seeds_draw_different_numbers():
    one, other = draw(100), draw(100, seed=6)
    assert (one.t == other.t).sum() < 10 and not (one.eps == other.eps).any()
    assert len(one.eps.unique()) > 95 and len(one.t.unique()) > 50


def test_draws_move_together():
    moved = draw(8).to(torch.device("meta"))
    fields = moved.t, moved.eps, moved.dropped, moved.y_alt, moved.rows
    assert {f.device.type for f in fields} == {"meta"}


# ----------------------------------------------------------------------------
# Who is regularised.


def test_a_share_of_the_regulariser_costs_that_share():
    n = 4000
    for share in (0.1, 0.5):
        m = len(draw(n, reg_share=share, p_uncond=0.2).rows)
        assert m == pytest.approx(share * 0.8 * n, rel=0.1)
    whole = draw(n, p_uncond=0.2)
    assert torch.equal(whole.rows, (~whole.dropped).nonzero().flatten())


def test_tau_zero_and_ddpm_pay_for_no_second_prediction():
    for options in ({"tau": 0.0}, {"name": "ddpm"}):
        assert len(draw(200, **options).rows) == 0


def test_who_is_regularised_follows_the_image():
    config = LossConfig(reg_share=0.3)
    drawer = Drawer(config, STEPS, class_probs(COUNTS, 1), 5)
    images = torch.arange(960, 1008)
    whole = set(images[drawer(images, SHAPE, CPU).rows].tolist())
    for world_size in (2, 3, 4, 8):
        parts = [images[rank::world_size] for rank in range(world_size)]
        found = [p[drawer(p, SHAPE, CPU).rows].tolist() for p in parts]
        assert {image for part in found for image in part} == whole


# ----------------------------------------------------------------------------
# Options.


@pytest.mark.parametrize(
    ("option", "value", "way_out"),
    [
        ("name", "dpm", "Choose ddpm or cbdm"),
        ("tau", -0.5, "0 is plain DDPM, 1 the paper's default"),
        ("tau", float("nan"), "0 is plain DDPM"),
        ("tau", float("inf"), "0 is plain DDPM"),
        ("gamma", -1.0, "the paper uses 0.25"),
        ("gamma", float("inf"), "the paper uses 0.25"),
        ("label_power", 1.5, "1 keeps the training frequencies, 0 makes classes uniform"),
        ("label_power", -0.1, "1 keeps the training frequencies"),
        ("p_uncond", 1.1, "the paper found 0.1 best"),
        ("p_uncond", -0.1, "the paper found 0.1 best"),
        ("omega_max", -1.0, "the paper draws strengths from 0 to 1"),
        ("tcfg_gamma", float("nan"), "the paper uses 0.25"),
        ("reg_share", 0.0, "--loss.name ddpm"),
        ("reg_share", 1.5, "1 is the paper's objective"),
        ("reg_share", float("nan"), "1 is the paper's objective"),
    ],
)
def test_bad_options_are_named_with_value_and_way_out(option, value, way_out):
    with pytest.raises(ValueError) as caught:
        LossConfig(**{option: value})
    message = str(caught.value)
    assert f"loss.{option}" in message and f"{value}" in message and way_out in message


@pytest.mark.parametrize(
    ("option", "way_out"),
    [("omega_max", "--loss.omega-max 1.0"), ("p_uncond", "--loss.p-uncond 0.1")],
)
def test_trainable_guidance_needs_strengths_and_an_unconditional_prediction(option, way_out):
    LossConfig(**{option: 0.0})
    with pytest.raises(ValueError, match=rf"loss.{option} \(0.0\) leaves.*{way_out}"):
        LossConfig(tcfg=True, **{option: 0.0})


def test_a_class_without_images_is_an_error():
    with pytest.raises(ValueError, match=r"at least one image; these have none: \[1\]"):
        build_loss(LossConfig(), LinearSchedule(), torch.tensor([5, 0, 1]), seed=0)
