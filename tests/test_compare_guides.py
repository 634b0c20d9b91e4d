"""Rows of a comparison that have the networks of another: guided in another way."""

import numpy as np
import pytest
import torch
from test_compare import PLAIN, write
from test_compare_run import CPU, options, root  # noqa: F401

from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.generation.network import sampling_net
from cbdm_scale.sampling.sampler import Sampler
from tune.compare import main
from tune.comparison.network_job import do_network
from tune.comparison.networks import open_network, weights_file
from tune.comparison.options import CompareCluster, CompareData, CompareOptions
from tune.comparison.page import words
from tune.comparison.protocol import read_protocol
from tune.comparison.run import make_jobs, make_plan
from tune.comparison.sets import set_key

PROTOCOL = """
dataset: digits_lt
control: ddpm
options:
  model: {channels: 8, multipliers: [1], num_blocks: 1, attention: [], groups: 4}
  sample.num_steps: 4
  train: {lr: 0.02, warmup_images: 0, ema_halflife: 24}
num_images: 40
rows:
  ddpm: {preset: ddpm}
  same: {of: ddpm}
  auto: {of: ddpm, guide: 480}
  some: {of: ddpm, options: {sample.guidance_from: 0.5}}
  cbdm-auto: {of: cbdm, guide: 96}
  cbdm: {preset: cbdm, cost: 2}
screen: {seeds: [7], stops: [480, 960, 1920], strengths: [1], rows: [same, auto, some]}
confirm: {seeds: [0], stops: [96, 192], strengths: [1], rows: [cbdm-auto]}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory, root):  # noqa: F811
    """A screen, with its networks trained and all sets made. Read only."""
    folder = tmp_path_factory.mktemp("guided")
    (folder / "small.yaml").write_text(PROTOCOL)
    found = make_plan(
        about(folder, root), read_protocol(str(folder / "small.yaml")), write=True
    )
    for job in make_jobs(found, dict.fromkeys(found.configs, 1.0)):
        do_network(job, 0)
    return found


def about(folder, root, phase="screen"):  # noqa: F811
    return CompareOptions(
        protocol=str(folder / "small.yaml"),
        phase=phase,
        data=CompareData(root=root),
        cluster=CompareCluster(storage=str(folder), device="cpu"),
    )


def images_of(plan, row):
    """The sets of a row: training images -> images and features."""
    folder = plan.home.local_path() / "sets" / f"{row}-seed7"
    found = {}
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as content:
            found[int(file.name.split("-")[0])] = content["images"], content["features"]
    return found


def test_rows_with_the_networks_of_another_train_none(plan):
    assert plan.home.child("networks").list() == ["ddpm-seed7"]
    kept = plan.home.child("networks/ddpm-seed7/stops").list()
    assert kept == [weights_file(n).rpartition("/")[2] for n in (480, 960, 1920)]
    assert set(images_of(plan, "auto")) == {960, 1920}, "its guide is the stop at 480"
    assert set(images_of(plan, "some")) == {480, 960, 1920}


def test_the_same_guidance_makes_the_same_images_and_another_makes_others(plan):
    ddpm = images_of(plan, "ddpm")
    for row, same in (("same", True), ("auto", False), ("some", False)):
        for images, (made, features) in images_of(plan, row).items():
            assert np.array_equal(made, ddpm[images][0]) == same, row
            assert np.array_equal(features, ddpm[images][1]) == same, row


def test_another_guide_makes_other_sets(plan):
    """A row whose guide changes under the same name does not take the images of before."""
    config = plan.config("auto", 7)
    keys = [set_key(config, 40, "extractor", guide) for guide in (0, 480, 960)]
    assert len(set(keys)) == 3 and keys[0] == set_key(config, 40, "extractor")


def test_the_guide_is_the_same_network_at_its_earlier_stop(plan):
    """e + omega (e - e_guide), by hand."""
    config, network = plan.config("auto", 7), plan.network("auto", 7)
    process = build_process(config.noise, CPU)
    sampler = Sampler(
        shape=(1, 8, 8), null_label=10, process=process, config=config.sample, seed=7
    )
    net, weak = (
        sampling_net(open_network(network, plan.manifest, n, CPU), CPU, "fp32")
        for n in (1920, 480)
    )

    def guided(x, level, y, omega=None, augment=None):
        e = net(x, level, y)
        return e + 1.0 * (e - weak(x, level, y))

    numbers = torch.arange(40)
    expected = to_uint8(sampler.generate(guided, numbers, numbers % 10, 0.0))
    assert np.array_equal(images_of(plan, "auto")[1920][0], expected.numpy())


def test_a_network_that_no_row_of_its_own_asks_for_is_trained_at_its_cost(tmp_path, root):  # noqa: F811
    (tmp_path / "small.yaml").write_text(PROTOCOL)
    protocol = read_protocol(str(tmp_path / "small.yaml"))
    found = make_plan(about(tmp_path, root, "confirm"), protocol, write=True)
    first, second = make_jobs(found, {"ddpm": 1.0, "cbdm-auto": 2.0})
    assert [one.row for one in second.sets] == ["cbdm-auto"]
    assert second.config.run_name == "cbdm-seed0" and second.config.loss.name == "cbdm"
    assert second.sets[0].config.run_name == "cbdm-auto-seed0"
    assert second.sets[0].stops == {192: 96} and second.sets[0].guide == 48
    assert second.images == [48, 96] and first.images == [96, 192]
    told = words(protocol, "cbdm-auto")
    assert told == "the networks of cbdm, guided by its network at 96, guidance one"


def test_a_dry_run_counts_the_training_of_a_network_once(tmp_path, root, capsys):  # noqa: F811
    (tmp_path / "small.yaml").write_text(PROTOCOL)
    said = [*options(tmp_path, root), "--phase", "screen", "--dry-run"]
    assert main(said) == 0
    lines = [x.split("|")[1:-1] for x in capsys.readouterr().out.splitlines() if "| " in x]
    rows = {line[0].strip(): line for line in lines}
    assert rows["auto"][2].strip() == "960, 1,920"
    assert rows["auto"][3].strip() == rows["same"][3].strip() == "0.00"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{of: edm}", r"rows.new.of .edm. is no row with networks of its own. .*ddpm, cbdm\."),
        ("{of: other}", r"rows.new.of .other. is no row with networks of its own"),
        ("{of: cbdm, options: {loss.tau: 1}}", "loss.tau would make other networks than those"),
        ("{of: cbdm, cost: 2, stops: [48]}", "cost, stops would make other networks"),
        ("{of: cbdm, preset: cbdm}", "preset would make other networks"),
        ("{guide: 48, options: {eval.guidance_mode: tcfg}}", "are two ways to guide"),
    ],
)
def test_a_row_that_would_need_other_networks_is_refused(tmp_path, row, says):
    text = PLAIN.replace("rows:\n", f"rows:\n  other: {{of: ddpm}}\n  new: {row}\n")
    with pytest.raises(ValueError, match=says):
        read_protocol(write(tmp_path, text))


def test_a_guide_is_an_earlier_stop_and_the_control_has_its_own_networks(tmp_path):
    text = PLAIN.replace("rows:\n", "rows:\n  new: {of: ddpm, guide: 96}\n")
    found = read_protocol(write(tmp_path, text))
    with pytest.raises(ValueError, match=r"rows.new.guide .96. is no earlier stop .* 48, 96\."):
        found.stops("new", found.confirm)
    for text, says in (
        (PLAIN.replace("{preset: ddpm}", "{of: cbdm}"), "Make cbdm the control"),
        (
            PLAIN.replace("{preset: ddpm}", "{preset: ddpm, guide: -1}"),
            "guide must be at least",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            read_protocol(write(tmp_path, text))
