"""Autoguidance: by a worse network, in place of the one without a label."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_tools import HERE, QUICK, evaluate, random_classifier  # noqa: F401
from sampling_tools import make_run, only_set

from cbdm_scale.diffusion.options import EDMConfig, NoiseConfig, ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.evaluation.store import read_evaluation
from cbdm_scale.generation.plan import SetPlan
from cbdm_scale.pretrained.guide import _misfit
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.sample import main, parse
from cbdm_scale.sampling.guidance import GuidanceInterval, at_level, guide
from cbdm_scale.sampling.sampler import Sampler
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.averaged_weights import keep_averages
from cbdm_scale.training.power_ema import start_averages

STEPS = LinearSchedule(ScheduleConfig(num_steps=10))
X, LEVEL, Y = torch.randn(3, 1, 2, 2), torch.tensor([1, 5, 9]), torch.tensor([0, 1, 2])


def net(x, level, y, omega=None, augment=None):
    return x * (level + 10 * y + (0 if augment is None else augment.sum(1))).view(-1, 1, 1, 1)


def weak(x, level, y, omega=None, augment=None):
    return 0.5 * net(x, level, y + 1, omega, augment)


def test_it_moves_away_from_the_worse_networks_prediction_for_the_same_label():
    augment = torch.arange(27.0).view(3, 9)
    found = guide(net, 1.6, 7, weak=weak)(X, LEVEL, Y, augment=augment)
    e, e_weak = (one(X, LEVEL, Y, None, augment) for one in (net, weak))
    torch.testing.assert_close(found, e + 1.6 * (e - e_weak))
    omega = torch.tensor([0.0, 0.5, 2.0])
    by_image = guide(net, omega, 7, weak=weak)(X, LEVEL, Y, augment=augment)
    torch.testing.assert_close(by_image, e + omega.view(-1, 1, 1, 1) * (e - e_weak))
    assert guide(net, 0.0, 7, weak=weak) is net


def test_the_worse_network_is_asked_inside_the_interval_only():
    asked = []

    def counting(x, level, y, omega=None, augment=None):
        asked.extend(level.tolist())
        return weak(x, level, y)

    guided = guide(net, 1.0, 7, GuidanceInterval(STEPS, low=0.1, high=0.5), weak=counting)
    for level in (0, 1, 5, 6):
        at_level(guided, torch.tensor([level]))(X, torch.full_like(LEVEL, level), Y)
    assert asked == [1] * 3 + [5] * 3
    inside = torch.tensor([True, True, False]).view(-1, 1, 1, 1)
    expected = torch.where(inside, guide(net, 1.0, 7, weak=weak)(X, LEVEL, Y), net(X, LEVEL, Y))
    torch.testing.assert_close(guided(X, LEVEL, Y), expected)


def test_it_takes_the_place_of_the_mode():
    expected = guide(net, 0.8, 7, weak=weak)(X, LEVEL, Y)
    for mode in ("cfg", "tcfg"):
        assert torch.equal(guide(net, 0.8, 7, mode=mode, weak=weak)(X, LEVEL, Y), expected)


# ----------------------------------------------------------------------------
# By the commands.


@pytest.fixture
def run(tmp_path, digits_root):
    return make_run(tmp_path / "runs", digits_root, images=(24, 48))


def sample(run, out, *words):
    words = ("--run", run, "--format", "npz", "--out", out, *HERE, *words)
    assert main([str(word) for word in words]) == 0
    found = only_set(str(out))
    with np.load(found.local_path("images-30.npz"), allow_pickle=False) as file:
        return file["arr_0"], found


def test_an_earlier_checkpoint_guides_the_run(run, tmp_path):
    made, found = sample(run, tmp_path / "1", "--guide", 24, "--guidance", 0.7)
    nets = [load_pretrained(f"{run}/checkpoints/{n:012d}").build() for n in (48, 24)]
    plan = SetPlan.from_dict(json.loads(found.read_bytes("set.json")))
    assert plan.guide and plan.guide.checkpoint == "000000000024-ema"
    assert "-000000000024-ema-auto0.7-" in found.url
    assert np.abs(guided(nets, plan) - made[:8]).max() <= 0.51
    same, _ = sample(run, tmp_path / "2", "--guide", f"{run}/checkpoints/000000000024")
    path, _ = sample(run, tmp_path / "3", "--guide", 24, "--guidance", 1)
    assert np.array_equal(same, path), "the run's own strength is 1"
    cfg, _ = sample(run, tmp_path / "4", "--guidance", 0.7)
    none, _ = sample(run, tmp_path / "5", "--guidance", 0)
    off, _ = sample(run, tmp_path / "6", "--guidance", 0, "--guide", 24)
    assert np.array_equal(none, off) and not np.array_equal(cfg, made)


def guided(nets, plan):
    """The first images of a set at strength 0.7, by hand: pixels before they are rounded."""
    process = LinearSchedule(plan.noise.schedule)
    sampler = Sampler(
        shape=plan.shape, null_label=10, process=process, config=plan.sample, seed=0
    )
    numbers = torch.arange(8)
    x = sampler.generate(nets[0], numbers, numbers % 10, 0.7, nets[1])
    return (x.permute(0, 2, 3, 1).numpy() + 1) * 127.5


def test_another_run_guides_with_its_own_weights(run, tmp_path, digits_root):
    other = make_run(tmp_path / "other", digits_root, images=(36,))
    made, found = sample(run, tmp_path / "1", "--guide", other, "--guidance", 0.7)
    nets = [load_pretrained(one).build() for one in (run, other)]
    plan = SetPlan.from_dict(json.loads(found.read_bytes("set.json")))
    assert plan.guide and plan.guide.checkpoint == "000000000036-ema"
    assert np.abs(guided(nets, plan) - made[:8]).max() <= 0.51
    own = load_pretrained(f"{run}/checkpoints/000000000024").build()
    assert np.abs(guided([nets[0], own], plan) - made[:8]).max() > 10


def test_strengths_by_group_and_other_weights_go_with_it(run, tmp_path):
    """Alone, the weights of the same checkpoint: here those that are no average."""
    words = "--guide-weights", "raw", "--guidance", "many=0,medium=0,few=2"
    made, found = sample(run, tmp_path / "1", *words)
    none, _ = sample(run, tmp_path / "2", "--guidance", 0)
    differs = (made != none).reshape(3, 10, -1).any(axis=(0, 2))
    assert differs.tolist() == [False] * 7 + [True] * 3
    assert "-000000000048-raw-auto" in found.url


def test_an_earlier_average_guides_also_where_its_checkpoint_is_gone(run, tmp_path):
    for images in (24, 48):
        net = load_pretrained(f"{run}/checkpoints/{images:012d}").build()
        keep_averages(Storage(run), start_averages(net, wanted=True), images)
    words = "--guide", 24, "--guide-weights", "power:0.1"
    before, found = sample(run, tmp_path / "1", *words)
    shutil.rmtree(f"{run}/checkpoints/000000000024")
    after, again = sample(run, tmp_path / "2", *words)
    assert np.array_equal(before, after)
    assert found.url.rpartition("/")[2] == again.url.rpartition("/")[2]
    assert main(["--run", run, *HERE, "--guide", "24"]) == 1, "its own average is gone"


def test_a_run_of_tcfg_may_be_guided_by_another_network(tmp_path, digits_root):
    run = make_run(tmp_path / "runs", digits_root, images=(24, 48), row="tcfg")
    options, *_ = parse(["--run", run, "--guide", "24"])
    assert options.guidance_mode == "cfg" and options.guide == "24"
    with pytest.raises(ValueError, match=r"guide \(24\) and guidance_mode \(tcfg\) are two"):
        parse(["--run", run, "--guide", "24", "--guidance-mode", "tcfg"])


def test_an_evaluation_says_who_guided(run, random_classifier, capsys):  # noqa: F811
    words = "--guidance", "0.5", "--guide", "24", "--seed", "7", *QUICK
    assert evaluate(run, random_classifier, *words) == 0
    said = capsys.readouterr().out
    assert "autoguidance, by 000000000024-ema\n" in said
    assert re.search(r"next .* sample .* --guide 24 .*--guidance 0.5", said)
    [name] = Storage(f"{run}/evaluation").list()
    found = read_evaluation(Storage(f"{run}/evaluation/{name}"))
    [one] = found.sets
    assert (one.omega, one.guidance_mode, one.guide) == (
        0.5,
        "autoguidance",
        "000000000024-ema",
    )
    name = "eval/{}/50_images/autoguidance-000000000024-ema/seed_7/guidance_0.5/fid"
    metrics = found.metrics(load_pretrained(run).config.eval)
    assert name in [re.sub(r"classifier_[^/]*", "{}", metric) for metric in metrics]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--guide", "36"),
            r"guide \(36\): .* is no finished checkpoint.*There are 0+48, 0+24",
        ),
        (("--guide", "48"), r"guide \(48\) does not fit the network: it is the network itself"),
        (
            ("--guide", "/nowhere"),
            r"\(/nowhere\): run \(/nowhere\) does not exist. Give --guide",
        ),
        (("--guide-weights", "best"), r"guide \(best\): weights"),
        (("--guide-weights", "power:0.1"), r"guide \(power:0.1\): .* kept no averages"),
    ],
)
def test_a_guide_that_is_not_there_is_named(run, capsys, words, message):
    assert main(["--run", run, *HERE, *words]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not Path(run, "samples").exists()


def test_given_images_are_not_guided(run, random_classifier, capsys):  # noqa: F811
    assert evaluate(run, random_classifier, "--samples", "a.npz", "--guide", "24", *HERE) == 1
    assert (
        "samples (a.npz) are images that are there, and guide (24)" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "f" * 16}, r"its data set is digits_lt \(ffff.*, not digits_lt \("),
        ({"spec": {"image_size": 16}}, "its image is 1 x 16 x 16, not 1 x 8 x 8"),
        ({"spec": {"num_classes": 9}}, "its number of classes is 9, not 10"),
        ({"config": {"diffusion": ScheduleConfig(num_steps=500)}}, "ddpm of 500 steps, beta"),
        ({"config": {"process": "edm"}}, "its process is edm of sigma_data 0.5, not ddpm of"),
    ],
)
def test_a_guide_of_other_images_or_levels_is_refused(run, change, message):
    ours = load_pretrained(run)
    theirs = load_pretrained(f"{run}/checkpoints/000000000024")
    assert _misfit(ours, theirs) == ""
    for part, values in change.items():
        if isinstance(values, dict):
            usual = {"sample": replace(ours.config.sample, name="heun")}
            values = values | (usual if values.get("process") == "edm" else {})
            values = replace(getattr(theirs, part), **values)
        theirs = replace(theirs, **{part: values})
    assert re.search(message, _misfit(ours, theirs))
    other = replace(theirs, fingerprint="", config=ours.config)
    assert _misfit(ours, replace(other, spec=replace(ours.spec, omega_max=1.0))) == ""


def test_edm_has_other_levels_with_another_sigma_data():
    from cbdm_scale.pretrained.guide import _levels

    narrow = NoiseConfig(process="edm", edm=EDMConfig(sigma_data=0.4, p_mean=0.0))
    assert _levels(narrow) == "edm of sigma_data 0.4"
