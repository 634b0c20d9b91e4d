"""A second stage from its command to its images: trained, sampled, evaluated, exported, served.

In this process alone, with a network of 8 channels, whose images are noise.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sampling_tools import MODEL, make_run
from tracking_tools import make_database

from cbdm_scale.balancing.__main__ import usual as usual_of_balance
from cbdm_scale.evaluate import parse as parse_evaluate
from cbdm_scale.export import main as export
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.serve import generate_from_checkpoint
from cbdm_scale.sample import main as sample
from cbdm_scale.sample import parse as parse_sample
from cbdm_scale.train import main as train


@pytest.fixture(scope="module")
def stage(tmp_path_factory, digits_root):
    """The folder of a finished second stage; read only."""
    folder = tmp_path_factory.mktemp("work")
    flat = replace(MODEL, multipliers=(1,), attention=())  # which is exported in less time
    run = make_run(folder / "runs", digits_root, row="ddpm", model=flat)
    words = [
        *("--init-from", run, "--loss.tcfg", "--name", "stage"),
        *("--cluster.storage", str(folder / "runs"), "--cluster.workers", "0"),
        *("--track.uri", make_database(folder), "--eval.extractor", "none"),
        *("--train.total-images", "96", "--train.sample-every", "0"),
    ]
    assert train(words) == 0
    return folder / "runs" / "stage"


def test_what_a_stage_learnt_is_its_own_and_knows_strengths_up_to_2(stage):
    found = load_pretrained(str(stage))
    assert found.spec.omega_max == 2.0 and found.num_seen == 96
    before = load_pretrained(str(stage.parent / "noise"))
    assert all(found.tensors[n].shape == t.shape for n, t in before.tensors.items())
    assert any((found.tensors[n] != t).any() for n, t in before.tensors.items())
    assert found.tensors["omega.linear_2.weight"].any()


def test_every_command_asks_it_once_a_step_unless_told_otherwise(stage, capsys, tmp_path):
    run = ["--run", str(stage)]
    config = load_pretrained(str(stage)).config
    assert parse_sample(run)[0].guidance_mode == "tcfg"
    assert parse_evaluate([*run, "--extractor", "classifier"])[0].guidance_mode == "tcfg"
    assert usual_of_balance(config).guidance_mode == "tcfg"
    assert parse_sample([*run, "--guide-weights", "raw"])[0].guidance_mode == "cfg"
    words = [*run, "--num-images", "10", "--cluster.workers", "0", "--format", "npz"]
    words += ["--sample.num-steps", "2", "--out"]
    assert sample([*words, str(tmp_path / "one")]) == 0
    assert "guided   by one call a step (guidance_mode tcfg)" in capsys.readouterr().out
    assert sample([*words, str(tmp_path / "two"), "--guidance-mode", "cfg"]) == 0
    assert "guided   by" not in capsys.readouterr().out
    one, two = (
        np.load(next((tmp_path / name).rglob("*.npz")))["arr_0"] for name in ("one", "two")
    )
    assert one.shape == two.shape and not np.array_equal(one, two)


def test_it_is_exported_as_a_program_with_its_strength_and_served(stage, tmp_path):
    to = tmp_path / "out"
    assert export(["--run", str(stage), "--out", str(to), "--program"]) == 0
    card = (to / "README.md").read_text()
    assert "distilled from the network below" in card and "omega up to 2" in card
    assert "Fine-tuned from weights" in card and "DDPM (Equation 1)" not in card
    assert "module()(x, t, y, omega)" in card and "strengths in 0..2" in card
    again = load_pretrained(str(to))
    assert again.config.loss.distils and again.config.eval.guidance_mode == "tcfg"
    (to / "ema.safetensors").write_bytes((to / "model.safetensors").read_bytes())
    images = generate_from_checkpoint(str(to), [3, 4], omega=2.0)
    assert images.shape == (2, 8, 8, 1)
    with pytest.raises(ValueError, match="knows strengths up to 2"):
        generate_from_checkpoint(str(to), [3], omega=2.5)


def test_the_same_command_says_the_end_again(stage, capsys):
    """With the first run gone, too: what it needs is in its folder."""
    moved = stage.parent / "elsewhere"
    Path(stage.parent / "noise").rename(moved)
    try:
        words = [
            *("--init-from", str(stage.parent / "noise"), "--loss.tcfg", "--name", "stage"),
            *("--cluster.storage", str(stage.parent), "--cluster.workers", "0"),
            *("--track.uri", f"sqlite:///{stage.parents[1]}/mlflow.db"),
            *("--train.total-images", "96", "--train.sample-every", "0"),
            *("--eval.extractor", "none"),
        ]
        assert train(words) == 0
    finally:
        moved.rename(stage.parent / "noise")
    assert "finished at 96 images" in capsys.readouterr().out
