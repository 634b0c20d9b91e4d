"""A run of EDM through the commands, in one process: what is sampled, and what is scored."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_tools import QUICK, evaluate, found_in
from sampling_tools import make_run, only_set

from cbdm_scale.config.presets import preset
from cbdm_scale.config.schema import from_dict
from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion.edm import EDM
from cbdm_scale.evaluation.evaluator import evaluate_alone
from cbdm_scale.models.options import BACKBONES
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.sample import main as sample
from cbdm_scale.sample import parse as parse_sample
from cbdm_scale.sampling.sampler import Sampler
from cbdm_scale.storage.folder import Storage
from cbdm_scale.train import parse


@pytest.fixture
def edm(tmp_path: Path, digits_root: str) -> str:
    return make_run(tmp_path / "runs", digits_root, row="cbdm_edm")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("row", ["ddpm", "cbdm", "cbdm_tcfg"])
def test_every_row_and_backbone_takes_the_process(row, backbone):
    words = ["--process", "edm", "--preset", row, "--backbone", backbone]
    config, plain = parse(words).config, preset("digits_lt", row, backbone)
    assert config == replace(plain, process="edm", sample=config.sample)
    assert (config.sample.name, config.sample.num_steps) == ("heun", 18)
    assert config.run_name.startswith("digits_lt-edm") and config.run_name != plain.run_name
    assert from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_the_sample_command_makes_what_heun_makes_of_the_average_weights(edm):
    assert sample(["--run", edm, "--format", "npz", "--cluster.workers", "0"]) == 0
    with np.load(only_set(f"{edm}/samples").local_path("images-30.npz")) as file:
        images, y = file["arr_0"], torch.from_numpy(file["arr_1"])
    pretrained = load_pretrained(edm)
    net = pretrained.build()
    sampler = Sampler(
        shape=(1, 8, 8),
        null_label=10,
        process=EDM(pretrained.config.edm),
        config=pretrained.config.sample,
        seed=0,
        chunk_size=8,
    )
    expected = sampler.generate(net.eval(), torch.arange(30), y, omega=1.0)
    assert pretrained.config.sample.name == "heun"
    assert np.array_equal(images, to_uint8(expected).permute(0, 2, 3, 1).numpy())


def test_the_sample_command_refuses_samplers_of_ddpm(edm, capsys):
    assert parse_sample(["--run", edm])[0].sample.name == "heun"
    words = ["--run", edm, "--sample.name", "ddim", "--cluster.workers", "0"]
    assert sample(words) == 1
    said = capsys.readouterr().err
    assert "sample.name (ddim) is no sampler of the process edm. Try --sample.name heun" in said


def test_the_score_in_training_is_that_of_the_evaluate_command(edm, random_classifier):
    """Two ways to the same images: the evaluator's shares, and a set of the sample command."""
    words = ("--guidance", "0", "1", "--chunk-size", "8", *QUICK)
    assert evaluate(edm, random_classifier, *words) == 0
    by_command = found_in(edm)
    sets = by_command.sets
    config = from_dict(json.loads(Path(edm, "config.json").read_text()))
    asked = replace(
        config.eval, extractor=random_classifier, num_images=50, guidance=(0.0, 1.0), scan=True
    )
    training = evaluate_alone(
        torch.device("cpu"),
        48,
        lambda share: None,
        config=replace(config, eval=asked),
        run=Storage(edm),
        num_shares=1,
        log=lambda line: None,
    )
    assert [one.omega for one in sets] == [0, 1] and sets[0].fid != sets[1].fid
    for one in sets:
        assert one.fid is not None
        assert training.scores[str(one.omega)]["fid"] == pytest.approx(one.fid.value, rel=1e-3)
    assert training.key and {gap.name for gap in training.sets[0].missing} >= {"kid", "f8"}
    assert not training.sets[0].fid.is_known, "no interval was computed"
    for name in ("eval/guidance_0/fid", "eval/guidance_1/fidelity"):
        assert name in training.metrics(asked) and name in by_command.metrics(asked)
