"""Options of the losses."""

import pytest

from cbdm_scale.losses.options import LossConfig


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
