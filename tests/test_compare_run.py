"""A comparison from its command to its table, small: what is there is not made again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from ray_tools import ROOT, is_group, wait_for

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.presets import preset
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import with_values
from tune.compare import COMMAND, main
from tune.comparison import run
from tune.comparison.cost import measure
from tune.comparison.networks import train_network, weights_file
from tune.comparison.options import CompareOptions
from tune.comparison.protocol import read_protocol

PROTOCOL = """
dataset: digits_lt
control: ddpm
options:
  model: {{channels: 8, multipliers: [1], num_blocks: 1, attention: [], groups: 4}}
  model.dropout: 0.1
  sample.num_steps: 2
num_images: 40
rows:
  ddpm: {{preset: ddpm, guidance: both}}
  cbdm: {{preset: cbdm, cost: 2}}
screen: {{seeds: [7], stops: [96], strengths: [1]}}
confirm: {{seeds: [0, 1], stops: [96, 192], strengths: {strengths}}}
"""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(once, digits_root, random_classifier):
    """The digits with a classifier that learnt nothing. Read only."""

    def make(root):
        shutil.copytree(digits_root, root)
        shutil.copy(random_classifier.partition(":")[2], root / "digits_lt")

    return str(once("compare-root", make))


@pytest.fixture(scope="module")
def compared(once, root):
    """A comparison that was made. Read only."""

    def make(folder):
        folder.mkdir()
        assert compare(folder, root) == 0

    return once("compared", make)


@pytest.fixture(scope="module")
def folder(compared, tmp_path_factory):
    """The same comparison elsewhere, which goes on."""
    return shutil.copytree(compared, tmp_path_factory.mktemp("compared") / "copy")


def compare(folder, root, *words, strengths="[1]"):
    file = folder / "small.yaml"
    file.write_text(PROTOCOL.format(strengths=strengths))
    return main([*options(folder, root), *words])


def options(folder, root, parallel="1"):
    return [
        *("--protocol", str(folder / "small.yaml"), "--phase", "confirm"),
        *("--data.root", root, "--cluster.storage", str(folder), "--parallel", parallel),
        *("--cluster.device", "cpu"),
    ]


def files_of(folder):
    """Every file with the time of its last change, but for the lease's and the results."""
    home = folder / "compare" / "small" / "confirm"
    return {
        p.relative_to(home).as_posix(): p.stat().st_mtime_ns
        for p in home.rglob("*")
        if p.is_file() and p.parent != home
    }


def found_in(folder):
    return json.loads((folder / "compare/small/confirm/findings.json").read_text())


def test_a_comparison_ends_with_its_table(folder):
    found = found_in(folder)
    assert [line["name"] for line in found["lines"]] == ["ddpm", "ddpm, by group", "cbdm"]
    assert found["seeds"] == [0, 1] and found["lines"][2]["cost"] == 2
    values = found["lines"][2]["by_seed"]
    mean = sum(values[s]["scores"]["fid"] for s in "01") / 2
    assert found["lines"][2]["mean"]["fid"][0] == pytest.approx(mean)
    table = (folder / "compare/small/confirm/table.md").read_text()
    assert "less ddpm, seed by seed" in table


def test_the_dearer_method_is_stopped_at_fewer_images_and_every_stop_is_kept(folder):
    kept = {name for name in files_of(folder) if "/stops/" in name}
    assert kept == {
        f"networks/{row}-seed{seed}/{weights_file(images)}"
        for row, stops in (("ddpm", (96, 192)), ("cbdm", (48, 96)))
        for seed in (0, 1)
        for images in stops
    }
    whole = [name for name in files_of(folder) if name.endswith("optimizer.safetensors")]
    assert len(whole) == 4  # the newest checkpoint of each


def test_the_same_command_makes_nothing_again(folder, root):
    before = files_of(folder)
    assert compare(folder, root) == 0
    assert files_of(folder) == before


@pytest.mark.slow
def test_another_strength_and_another_seed_train_and_sample_what_is_new(folder, root):
    before = files_of(folder)
    words = ("--seeds", "0", "2", "--rows", "cbdm")
    assert compare(folder, root, *words, strengths="[1, 2]") == 0
    after = files_of(folder)
    assert {name: after[name] for name in before} == before
    new = set(after) - set(before)
    assert not [name for name in new if "/stops/" in name and "seed2" not in name]
    sets = {name.rpartition("/")[2].split("-")[1] for name in new if name.endswith(".npz")}
    assert sets == {"1", "2"}
    old = [name for name in new if name.endswith(".npz") and "seed2" not in name]
    assert len(old) == 4 and all("-2-" in name for name in old)


def test_a_stop_in_between_is_that_of_an_unbroken_run(tmp_path, root):
    """Later stops go on from the newest checkpoint, earlier ones begin anew: the same bits."""
    manifest = read_manifest(root, "digits_lt")
    found = {}
    for name, several in {
        "whole": [(48, 96)],
        "later": [(48,), (48, 96)],
        "between": [(96,), (48, 96)],
    }.items():
        config = with_options(
            preset("digits_lt", "ddpm"),
            {
                "name": name,
                "data.root": root,
                "cluster.storage": str(tmp_path),
                "model.channels": 8,
            },
        )
        for stops in several:
            train_network(config, manifest, stops, CPU, lambda text: None)
        run = Storage(str(tmp_path)).child(name)
        found[name] = [run.read_bytes(weights_file(images)) for images in (48, 96)]
    assert found["later"] == found["whole"]
    assert found["between"] == found["whole"]


def test_a_network_of_other_options_under_the_same_name_is_refused(folder, root, capsys):
    file = folder / "other" / "small.yaml"
    file.parent.mkdir()
    text = PROTOCOL.format(strengths="[1]")
    file.write_text(text.replace("dropout: 0.1", "dropout: 0.2").replace("192", "240"))
    words = options(folder, root)
    words[1] = str(file)
    assert main(words) == 1
    printed = capsys.readouterr().out
    assert "ddpm-seed0 failed: name (ddpm-seed0) is a run with another configuration" in printed


def test_what_does_not_fit_is_said_before_anything_is_made(tmp_path, root, capsys):
    for old, new, says in (
        ("num_images: 40", "num_images: 30", "num_images (30) must be a multiple of 20"),
        ("cost: 2", "cost: 20", "rows.cbdm: stops (96) is less than a step of 48 images"),
        ("preset: cbdm", "preset: cdbm", "rows.cbdm: preset (cdbm) is no preset of digits_lt"),
    ):
        file = tmp_path / "small.yaml"
        text = PROTOCOL.format(strengths="[1]")
        file.write_text(text.replace(old, new))
        assert main(options(tmp_path, root)) == 1
        assert says in capsys.readouterr().err
    assert compare(tmp_path, root, "--rows", "edm") == 1
    assert "rows (edm) are not in the protocol, which has ddpm, cbdm" in capsys.readouterr().err
    assert not (tmp_path / "compare/small/confirm/networks").exists()


def test_a_seed_of_the_other_phase_is_refused(tmp_path, root, capsys):
    """By the protocol, and by the networks of a screen whose seeds were typed."""
    assert compare(tmp_path, root, "--seeds", "0", "7", "8") == 1
    said = "seeds (7) are of the screen too: the networks that chose the rows would confirm "
    assert f"{said}their own choice. Try --seeds 0 1 2." in capsys.readouterr().err
    (tmp_path / "compare/small/screen/networks/ddpm-seed1").mkdir(parents=True)
    assert compare(tmp_path, root, "--dry-run") == 1
    assert "seeds (1) are of the screen too" in capsys.readouterr().err
    assert compare(tmp_path, root, "--phase", "screen", "--seeds", "1") == 1
    assert "seeds (1) are of the confirmation too" in capsys.readouterr().err
    assert not (tmp_path / "compare/small/confirm").exists()


def test_a_cost_is_measured_once_and_of_a_new_row_alone(tmp_path, root, monkeypatch):
    timed = []

    def measured(configs, *about):
        timed.append(list(configs))
        return measure(configs, *about, rounds=1)

    monkeypatch.setattr(run, "measure", measured)
    found = []
    for rows in ("cbdm", "cbdm", "cbdm t2h"):
        file = tmp_path / "small.yaml"
        text = PROTOCOL.format(strengths="[1]").replace("cbdm, cost: 2}", "cbdm}")
        file.write_text(text.replace("screen:", "  t2h: {preset: t2h}\nscreen:"))
        words = COMMAND.read([*options(tmp_path, root), "--rows", *rows.split()])
        asked = with_values(CompareOptions(), words)
        plan = run.make_plan(asked, read_protocol(asked.protocol), write=True)
        found.append(run.find_costs(plan))
    assert timed == [["ddpm", "cbdm"], ["ddpm", "t2h"]]
    assert found[0] == found[1] and found[0]["ddpm"] == 1.0 != found[0]["cbdm"] > 0
    assert found[2] == found[0] | {"t2h": found[2]["t2h"]}
    kept = json.loads((tmp_path / "compare/small/costs.json").read_text())
    assert {one["row"]: one["cost"] for one in kept.values()} == {
        row: cost for row, cost in found[2].items() if row != "ddpm"
    }


def test_a_dry_run_says_hours_and_writes_nothing(tmp_path, root, capsys):
    assert compare(tmp_path, root, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "| cbdm | 2.00 | 48, 96 |" in printed and "hours of a core" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # five times the command, each with processes that import torch
def test_a_comparison_that_is_killed_again_and_again_ends_as_the_one_never_killed(
    folder, tmp_path, root
):
    file = tmp_path / "small.yaml"
    file.write_text(PROTOCOL.format(strengths="[1]"))
    words = [sys.executable, "tune/compare.py", *options(tmp_path, root, "2")]
    wanted = ["networks/*/checkpoints/*", "sets/*/*.npz", "sets/ddpm-seed1/*.npz"]
    for pattern in wanted:
        process = subprocess.Popen(words, cwd=ROOT)
        try:
            deadline = time.monotonic() + 200
            while process.poll() is None and time.monotonic() < deadline:
                if list((tmp_path / "compare/small/confirm").glob(pattern)):
                    break
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL, "it had not ended by itself"
    subprocess.run(words, cwd=ROOT, check=True)
    assert found_in(tmp_path)["lines"] == made(folder, root)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["1", "2"])
def test_a_comparison_that_is_asked_to_stop_saves_its_networks_first(tmp_path, root, parallel):
    """Asked as `timeout` and a closing terminal ask: the whole process group."""
    text = PROTOCOL.format(strengths="[1]").replace("[96, 192]", "[960000]")
    (tmp_path / "small.yaml").write_text(text)
    words = [sys.executable, "tune/compare.py", *options(tmp_path, root, parallel)]
    networks = tmp_path / "compare/small/confirm/networks"
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT
    )

    def newest() -> list[int]:
        """Images of every network's newest checkpoint."""
        found = (list(one.glob("checkpoints/0*/state.json")) for one in networks.glob("*"))
        return sorted(max(int(file.parent.name) for file in files) for files in found if files)

    try:
        wait_for(lambda: len(newest()) == int(parallel))
        before = newest()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert said.endswith("stopped: the same command goes on from what is kept\n")
    assert all(a > b for a, b in zip(newest(), before, strict=True)), "saved as it was asked"
    assert not list(networks.glob("*/stop"))
    wait_for(lambda: not is_group(process.pid), 30)  # multiprocessing's own helper ends last


def made(folder, root):
    """The lines of the comparison that nobody killed, with the strengths that it had."""
    assert compare(folder, root) == 0
    return found_in(folder)["lines"]
