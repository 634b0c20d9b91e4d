"""A trained network as a folder for others: read back, described, and equal in diffusers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from record_tools import write_training_record
from safetensors.torch import load, load_file
from sampling_tools import make_run

from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.evaluation.model_card import write_card
from cbdm_scale.evaluation.results import Evaluation, Missing, SetResult
from cbdm_scale.evaluation.store import to_json
from cbdm_scale.export import main
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.metrics.per_class import ClassScore, ClassTable
from cbdm_scale.models.options import DiTConfig
from cbdm_scale.pretrained.export_diffusers import check_diffusers
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.storage.folder import Storage


def evaluation(checkpoint: str, images: int) -> Evaluation:
    few = ClassScore(
        label=None,
        group="few",
        num_train=12,
        num_real=60,
        num_fake=60,
        kid=None,
        fid=Interval(20.5, 19.0, 22.0),
        fid_images=(60, 60),
        fid_missing=None,
        fidelity=Interval(0.5, 0.4, 0.6),
        recall=0.875,
    )
    seven = replace(few, label=7, num_train=2, fid=Interval(30, 28, 32), fid_images=(55, 55))
    eight = replace(seven, label=8, fid=None, fid_images=None, fid_missing="too few images")
    one = SetResult(
        images="set",
        omega=0.8,
        guidance_mode="cfg",
        num_images=600,
        fid=Interval(4.5, 4.1, 4.9),
        kid=None,
        inception_score=None,
        precision=None,
        recall=0.57,
        density=None,
        coverage=None,
        f8=None,
        f_eighth=None,
        fidelity=None,
        table=ClassTable(classes=(seven, eight), pooled=(few,)),
        memorisation=(GroupMemorisation("few", 60, 0.9, 0.25),),
        missing=(Missing("f8", "no clusters"),),
    )
    return Evaluation(
        id="an-id",
        run="noise",
        checkpoint=checkpoint,
        trained_images=images,
        dataset="digits_lt",
        dataset_fingerprint="0" * 16,
        class_names=(*map(str, range(7)), "se|ven", "eight", "nine"),
        extractor="classifier",
        extractor_fingerprint="f" * 16,
        resize="bilinear",
        num_real=1000,
        held_out_copies=(GroupMemorisation("few", 60, 1.0, 0.125),),
        sets=(one, replace(one, omega=1.0, guidance_mode="tcfg", fid=Interval(9, 8, 10))),
    )


@pytest.fixture
def exported(run: str, tmp_path: Path) -> Path:
    to = tmp_path / "exported"
    assert main(["--run", run, "--out", str(to)]) == 0
    return to


def test_an_exported_network_is_the_run_s_average_to_the_bit(
    run: str,
    exported: Path,
) -> None:
    before, after = load_pretrained(run), load_pretrained(str(exported))
    assert after.weights == before.weights
    assert after.config.model == before.config.model
    assert (after.class_names, after.fingerprint) == (before.class_names, before.fingerprint)
    assert "/" not in json.loads((exported / "config.json").read_text())["data"]["root"]
    assert not [f for f in exported.rglob("*") if f.suffix in (".pt", ".bin", ".pkl")]


def test_the_folder_for_diffusers_comes_back_with_its_noise_and_its_none(
    run: str,
    exported: Path,
) -> None:
    before, after = load_pretrained(run), load_pretrained(str(exported / "diffusers/unet"))
    assert after.config.diffusion == before.config.diffusion
    assert (after.spec.num_classes, after.class_names) == (10, before.class_names)
    ours, theirs = load(before.weights), load(after.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())


def test_the_card_says_counts_objective_and_intended_use(
    exported: Path, digits_root: str
) -> None:
    card = (exported / "README.md").read_text()
    real = read_manifest(digits_root, "digits_lt")
    for name, group, count in zip(
        real.class_names, real.groups, real.counts["train"], strict=True
    ):
        assert f"| {name} | {group} | {count} |" in card
    assert "CBDM (Equation 4): tau 1" in card and "## Intended use" in card
    assert "no evaluation of this checkpoint was found" in card


def test_the_card_has_the_metrics_of_this_checkpoint_and_of_no_other(
    run: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for made, (name, images, fid) in enumerate([("a", 48, 4.5), ("b", 96, 3.0)]):
        found = evaluation(run, images)
        sets = tuple(replace(s, fid=Interval(fid, fid, fid)) for s in found.sets)
        home = Storage(run).child(f"evaluation/{name}")
        home.write_bytes("metrics.json", to_json(replace(found, sets=sets)).encode())
        home.write_json("about.json", {"made": made, "command": ""})
    assert main(["--run", run, "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "| 0.8 | cfg | 1.8 | 600 | 4.5 [4.5, 4.5] |" in card and "3 [3, 3]" not in card
    assert "not evaluated" not in capsys.readouterr().out


def test_without_one_by_the_command_the_card_has_the_evaluation_of_training(
    run: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores = {"fid": 7.5, "fid_few": 20.0, "fidelity": 0.5}
    write_training_record(Storage(run), 48, {"1.0": scores})
    assert main(["--run", run, "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "| 1 | cfg | 2 | 30 | 7.5 | - | - | - | - | - | - | 0.5 |" in card
    assert "not evaluated" not in capsys.readouterr().out


def test_the_metrics_of_the_card_have_intervals_groups_classes_and_what_is_missing(
    run: str,
) -> None:
    card = write_card(load_pretrained(run), None, evaluation("a-run", 48), {})
    assert "| 0.8 | cfg | 1.8 | 600 | 4.5 [4.1, 4.9] | - | - | - | 0.57 | - | - | - |" in card
    assert "| 1 | tcfg | - | 600 | 9 [8, 10] |" in card, "diffusers has no such guidance"
    assert "By group, at omega 0.8." in card
    assert "| few | 12 | 20.5 [19, 22] | - | 0.875 | 0.5 [0.4, 0.6] | 0.25 | 0.125 |" in card
    assert r"| se\|ven | 2 | 30 [28, 32] | 55 and 55 | - | 0.5 [0.4, 0.6] |" in card
    assert "| eight | 2 | - | - | - | 0.5 [0.4, 0.6] |" in card
    assert "- F_8: no clusters" in card and "too few images" in card


def test_an_evaluation_of_an_older_version_is_left_out_of_the_card_and_named(
    run: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = to_json(evaluation(run, 48)).replace('"format": 1', '"format": 0')
    for made, (name, text) in enumerate([("new", to_json(evaluation(run, 48))), ("old", old)]):
        home = Storage(run).child(f"evaluation/{name}")
        home.write_bytes("metrics.json", text.encode())
        home.write_json("about.json", {"made": made, "command": ""})
    assert main(["--run", run, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "left out of the card: " in said and "evaluation/old/metrics.json" in said
    assert (
        "| 0.8 | cfg | 1.8 | 600 | 4.5 [4.1, 4.9] |" in (tmp_path / "out/README.md").read_text()
    )


def test_a_folder_that_is_not_empty_is_left_alone(
    run: str,
    exported: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--run", run, "--out", str(exported)]) == 1
    assert "is there already, not empty" in capsys.readouterr().err
    assert main(["--run", run]) == 1
    assert "out is missing" in capsys.readouterr().err


def test_a_layer_that_diffusers_lacks_is_named(
    tmp_path: Path, digits_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = make_run(tmp_path / "runs", digits_root, row="tcfg")
    assert main(["--run", told, "--out", str(tmp_path / "out")]) == 0
    assert "left the layer omega" in capsys.readouterr().out
    kept = load_file(tmp_path / "out/model.safetensors")
    assert any(name.startswith("omega.") for name in kept)


def test_a_network_of_edm_gets_no_scheduler_of_ddpm_and_the_card_says_its_noise(
    tmp_path: Path, digits_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edm, to = make_run(tmp_path / "runs", digits_root, row="cbdm_edm"), tmp_path / "out"
    assert main(["--run", edm, "--out", str(to)]) == 0
    assert "not written: the network is of the process edm" in capsys.readouterr().out
    assert not (to / "diffusers").exists()
    card = (to / "README.md").read_text()
    assert "EDM noise (Karras et al., 2022): ln(sigma) is normal with mean -1.2" in card
    assert "DDPM noise" not in card and "CBDM (Equation 4): tau 1" in card
    again = load_pretrained(str(to)).config
    assert (again.process, again.sample.name) == ("edm", "heun")


DIT = DiTConfig(depth=2, width=32, heads=4, step_shift=1)


def test_a_dit_for_diffusers_comes_back_with_its_noise_and_its_none(
    tmp_path: Path, digits_root: str
) -> None:
    run = make_run(tmp_path / "runs", digits_root, row="tcfg", backbone="dit", model=DIT)
    assert main(["--run", run, "--out", str(tmp_path / "out")]) == 0
    before, after = (
        load_pretrained(run),
        load_pretrained(str(tmp_path / "out/diffusers/transformer")),
    )
    assert (after.config.model, after.config.diffusion) == (DIT, before.config.diffusion)
    assert (after.spec.num_classes, after.class_names) == (10, before.class_names)
    ours, theirs = load(before.weights), load(after.weights)
    assert {name.partition(".")[0] for name in ours.keys() - theirs.keys()} == {"omega"}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    card = (tmp_path / "out/README.md").read_text()
    assert 'DiTTransformer2DModel.from_pretrained("diffusers", subfolder="transformer")' in card
    assert "left the layer omega, which DiTTransformer2DModel has no place for" in card


def test_a_dit_with_other_waves_of_the_step_is_not_written_and_the_way_out_is_said(
    tmp_path: Path, digits_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = replace(DIT, step_shift=0)
    run = make_run(tmp_path / "runs", digits_root, backbone="dit", model=model)
    assert main(["--run", run, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "not written: the network has model.step_shift 0" in said
    assert "Train with --model.step-shift 1" in said
    assert not (tmp_path / "out/diffusers").exists()


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_one_denoising_step_of_a_dit_is_the_same_in_diffusers(
    tmp_path: Path, digits_root: str
) -> None:
    pytest.importorskip("diffusers", reason="the oracle: pip install .[oracle]")
    run = make_run(tmp_path / "runs", digits_root, backbone="dit", model=DIT)
    assert main(["--run", run, "--out", str(tmp_path / "out")]) == 0
    pretrained, folder = load_pretrained(run), tmp_path / "out/diffusers"
    assert "checked: one denoising step" in check_diffusers(pretrained, folder)
    config = folder / "transformer/config.json"
    heads = {"num_attention_heads": 2, "attention_head_dim": 16}
    config.write_text(json.dumps(json.loads(config.read_text()) | heads))
    with pytest.raises(ValueError, match="another image of this network"):
        check_diffusers(pretrained, folder)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_one_denoising_step_is_the_same_in_diffusers(
    run: str,
    exported: Path,
) -> None:
    pytest.importorskip("diffusers", reason="the oracle: pip install .[oracle]")
    pretrained, folder = load_pretrained(run), exported / "diffusers"
    assert "checked: one denoising step" in check_diffusers(pretrained, folder)
    config = folder / "unet/config.json"
    config.write_text(config.read_text().replace("silu", "gelu"))
    with pytest.raises(ValueError, match="another image of this network"):
        check_diffusers(pretrained, folder)
