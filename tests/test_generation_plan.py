"""The plan of a set: its labels, its chunks and its name."""

import json
from dataclasses import replace

import pytest
import torch

from cbdm_scale.diffusion.options import EDMConfig, NoiseConfig, ScheduleConfig
from cbdm_scale.generation.plan import SetPlan, label_probs, plan_set, select_classes
from cbdm_scale.models.options import BACKBONES, UNetConfig, backbone_config
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.sampling.options import HeunConfig, SamplerConfig, usual_sampler

COUNTS = (100, 25, 4)
PLAN = SetPlan(
    checkpoint="000000000048",
    weights_sha256="0" * 64,
    network=NetworkSpec(model=UNetConfig(), channels=1, image_size=8, num_classes=3),
    noise=NoiseConfig(),
    sample=SamplerConfig(),
    omega=1.5,
    seed=0,
    labels="cyclic",
    classes=(0, 1, 2),
    probs=(),
    chunk_size=8,
    precision="fp32",
)


def test_chunks_do_not_depend_on_how_many_images_follow():
    assert PLAN.chunks(20) == [(0, 8), (8, 16), (16, 20)]
    assert PLAN.chunks(24)[:2] == PLAN.chunks(20)[:2]


def test_cyclic_labels_are_exact_and_known_by_number():
    assert PLAN.labels_of(torch.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0]
    some = replace(PLAN, classes=(0, 2))
    assert some.labels_of(torch.tensor([5, 6, 1_000_001])).tolist() == [2, 0, 2]


def test_quotas_are_so_many_images_of_each_class_and_change_no_other_sets_name():
    plan = replace(PLAN, labels="counts", classes=(0, 2), quotas=(3, 2))
    assert plan.labels_of(torch.arange(5)).tolist() == [0, 0, 0, 2, 2]
    assert plan.labels_of(torch.tensor([4, 2])).tolist() == [2, 0]
    assert SetPlan.from_dict(plan.to_dict()) == plan and "quotas" not in PLAN.to_dict()


def test_names_of_the_classes_go_along_and_make_no_other_set():
    plan = replace(PLAN, class_names=("a", "b", "c"))
    assert plan == PLAN and plan.name == PLAN.name and "class_names" not in PLAN.to_dict()
    assert SetPlan.from_dict(plan.to_dict()).class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("labels", "power"), [("train", 1), ("sqrt", 0.5), ("bal", 0), ("2", 2)]
)
def test_drawn_labels_have_the_frequencies_of_the_power(labels, power):
    probs = label_probs(labels, (0, 1, 2), COUNTS)
    y = replace(PLAN, probs=probs).labels_of(torch.arange(20_000))
    expected = torch.tensor(COUNTS).double() ** power
    expected /= expected.sum()
    torch.testing.assert_close(torch.bincount(y).double() / 20_000, expected, atol=0.01, rtol=0)


def test_a_drawn_label_belongs_to_the_image_not_to_the_chunk():
    plan = replace(PLAN, probs=label_probs("sqrt", (0, 1, 2), COUNTS))
    whole = plan.labels_of(torch.arange(100))
    assert torch.equal(plan.labels_of(torch.arange(40, 60)), whole[40:60])
    assert not torch.equal(replace(plan, seed=1).labels_of(torch.arange(100)), whole)


def test_some_classes_share_the_probability():
    assert label_probs("train", (0, 2), COUNTS) == pytest.approx((100 / 104, 4 / 104))
    assert label_probs("cyclic", (0, 2), None) == ()
    assert label_probs("bal", (0, 2), None) == (0.5, 0.5)


def test_every_option_that_changes_the_images_changes_the_name():
    changes = {
        "weights_sha256": "1" * 64,
        "sample": SamplerConfig(guidance_from=0.1),
        "omega": 1.6,
        "seed": 1,
        "labels": "bal",
        "classes": (0, 1),
        "chunk_size": 9,
        "precision": "bf16",
        "guidance_mode": "tcfg",
        "strengths": (0.5, 0.5, 1.0),
        "network": replace(PLAN.network, omega_max=2.0),
        "noise": replace(PLAN.noise, schedule=ScheduleConfig(num_steps=500)),
    }
    names = {PLAN.name} | {replace(PLAN, **{k: v}).name for k, v in changes.items()}
    assert len(names) == 1 + len(changes)
    assert PLAN.name.startswith("000000000048-ddim100-omega1.5-cyclic-seed0-")


def by_class(omega, counts=COUNTS, mode="cfg"):
    return plan_set(
        replace(PLAN.network, omega_max=1.5),
        NoiseConfig(),
        checkpoint="a",
        weights_sha256="",
        counts=counts,
        groups=("many", "medium", "few"),
        omega=omega,
        seed=0,
        chunk_size=8,
        on_gpu=False,
        precision="fp32",
        sample=SamplerConfig(),
        guidance_mode=mode,
    )


def test_a_strength_by_class_is_one_an_image_by_its_label():
    plan = by_class("many=0.5,medium=0.25,few=1")
    assert plan.strengths == (0.5, 0.25, 1.0)
    assert plan.omegas_of(torch.tensor([2, 0, 1])).tolist() == [1.0, 0.5, 0.25]
    assert by_class("count=1:-0.5").strengths[:1] == (0.0,)
    assert SetPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert "-omegamany_0.5_medium_0.25_few_1-" in plan.name
    assert PLAN.omegas_of(torch.arange(3)) == 1.5 and "strengths" not in PLAN.to_dict()


@pytest.mark.parametrize(
    ("omega", "options", "message"),
    [
        ("many=1,few=1", {}, r"guidance \(many=1,few=1\) must name the groups"),
        ("count=1:1", {"counts": None}, r"\(count=1:1\) needs the class counts .*--data.root"),
        ("count=0:2", {"mode": "tcfg"}, "up to 1.5 .*got 4"),
    ],
)
def test_strengths_that_do_not_fit_are_named(omega, options, message):
    with pytest.raises(ValueError, match=message):
        by_class(omega, **options)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_plan_on_any_backbone_survives_json(backbone):
    plan = replace(PLAN, network=replace(PLAN.network, model=backbone_config(backbone)))
    assert SetPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_classes_are_parsed_and_checked():
    assert select_classes((7, 3, 3), 10) == (3, 7)
    assert select_classes((), 3) == (0, 1, 2)
    for number in (10, -1):
        with pytest.raises(ValueError, match=rf"classes: {number} is no class .* 0 to 9"):
            select_classes((number,), 10)


def test_classes_are_chosen_by_name_or_else_by_number():
    names = ("apple", "keyboard", "10", "2")
    assert select_classes(("keyboard", "10"), 4, names) == (1, 2)
    assert select_classes(("0", "2"), 4, names) == (0, 3), "2 is the name of the last"
    with pytest.raises(ValueError, match=r"keybord is no class .*Try --classes keyboard\."):
        select_classes(("keybord",), 4, names)


def test_what_does_not_act_names_nothing():
    other = replace(PLAN, sample=SamplerConfig(heun=HeunConfig(churn=9)))
    assert other.name == PLAN.name and "heun" not in PLAN.to_dict()["sample"]


def test_a_plan_of_another_format_is_refused():
    with pytest.raises(ValueError, match="format version 9, not 1"):
        SetPlan.from_dict(PLAN.to_dict() | {"format_version": 9})


def test_the_process_its_law_and_its_sampler_name_a_set():
    noise = NoiseConfig(process="edm")
    edm = replace(PLAN, noise=noise, sample=usual_sampler("edm"))
    assert "-heun18-" in edm.name
    for other in (
        replace(edm, noise=NoiseConfig()),
        replace(edm, noise=replace(noise, edm=EDMConfig(sigma_data=0.6))),
        replace(edm, sample=replace(edm.sample, heun=HeunConfig(churn=9))),
    ):
        assert other.name != edm.name
        assert SetPlan.from_dict(json.loads(json.dumps(other.to_dict()))) == other
