"""Options of the losses."""

import pytest

from cbdm_scale.losses.options import LossConfig


@pytest.mark.parametrize(
    ("option", "value", "way_out"),
    [
        ("name", "dpm", "ddpm or cbdm"),
        ("tau", -0.5, "Try --loss.tau 1"),
        ("tau", float("nan"), "Try --loss.tau 1"),
        ("tau", float("inf"), "Try --loss.tau 1"),
        ("gamma", -1.0, "Try --loss.gamma 0.25"),
        ("gamma", float("inf"), "Try --loss.gamma 0.25"),
        ("label_power", 1.5, "Try --loss.label-power 1"),
        ("label_power", -0.1, "Try --loss.label-power 1"),
        ("p_uncond", 1.1, "Try --loss.p-uncond 0.1"),
        ("p_uncond", -0.1, "Try --loss.p-uncond 0.1"),
        ("omega_max", -1.0, "Try --loss.omega-max 1"),
        ("tcfg_gamma", float("nan"), "Try --loss.tcfg-gamma 0.25"),
        ("delta_fm", 1.0, "The paper has 0.05"),
        ("delta_fm", -0.1, "The paper has 0.05"),
        ("two_mask", -1.0, "at least 0"),
        ("two_mask_diversity", -1.0, "Try --loss.two-mask-diversity 0.2"),
        ("ccua_align", float("inf"), "at least 0"),
        ("ccua_contrast", -1.0, "at least 0"),
        ("coral", -1.0, "at least 0"),
        ("coral_temperature", 0.0, "Try --loss.coral-temperature 0.1"),
        ("dispersive", float("nan"), "at least 0"),
        ("reg_share", 0.0, "--loss.name ddpm"),
        ("reg_share", 1.5, "at most 1"),
        ("reg_share", float("nan"), "at most 1"),
    ],
)
def test_bad_options_are_named_with_value_and_way_out(option, value, way_out):
    with pytest.raises(ValueError) as caught:
        LossConfig(**{option: value})
    message = str(caught.value)
    assert f"loss.{option}" in message and way_out in message
    assert f"got {value!r}" in message or f"got {value:g}" in message


@pytest.mark.parametrize(
    ("option", "way_out"),
    [("omega_max", "--loss.omega-max 1.0"), ("p_uncond", "--loss.p-uncond 0.1")],
)
def test_trainable_guidance_needs_strengths_and_an_unconditional_prediction(option, way_out):
    LossConfig(**{option: 0.0})
    with pytest.raises(ValueError, match=rf"loss.{option} \(0.0\) leaves.*{way_out}"):
        LossConfig(tcfg=True, **{option: 0.0})


@pytest.mark.parametrize("term", ["ccua_align", "ccua_contrast"])
def test_ccua_needs_a_prediction_without_label_that_is_taught(term):
    LossConfig(p_uncond=0.0)
    with pytest.raises(ValueError, match=rf"loss.p_uncond \(0.0\) leaves loss.{term} .* 0.1"):
        LossConfig(**{term: 1.0}, p_uncond=0.0)


@pytest.mark.parametrize(
    ("options", "title", "predictions"),
    [
        ({"name": "ddpm"}, "ddpm", 1),
        ({"reg_share": 0.25}, "cbdm", 1.25),
        ({"tau": 0.0}, "cbdm", 1),
        ({"tcfg": True}, "cbdm_tcfg", 4),
        ({"name": "ddpm", "delta_fm": 0.05, "t2h": True}, "ddpm_delta_fm_t2h", 1),
        ({"name": "ddpm", "two_mask": 1.0, "ccua_align": 1.0}, "ddpm_two_mask_ccua_align", 3),
        ({"name": "ddpm", "coral": 0.5, "dispersive": 1.0}, "ddpm_coral_dispersive", 1),
        ({"name": "ddpm", "ccua_contrast": 1.0}, "ddpm_ccua_contrast", 2),
        ({"name": "ddpm", "tcfg": True, "ccua_align": 1.0}, "ddpm_tcfg_ccua_align", 3),
    ],
)
def test_the_title_and_the_number_of_predictions_are_those_of_the_terms(
    options, title, predictions
):
    config = LossConfig(**options)
    assert (config.title, config.predictions) == (title, predictions)
