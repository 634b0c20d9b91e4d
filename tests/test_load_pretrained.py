"""What --run may name, and what is said of what it may not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from sampling_tools import make_run
from test_third_party import CONFIGS, random_net, save, to_paper_names
from tracking_tools import make_database

from cbdm_scale.models.build import build
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import find_training_data
from cbdm_scale.sample import main
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.averaged_weights import keep_averages
from cbdm_scale.training.power_ema import start_averages


@pytest.fixture
def run(tmp_path, digits_root):
    return make_run(tmp_path / "runs", digits_root, images=(48, 96))


def test_a_run_is_its_newest_whole_checkpoint(run):
    pretrained = load_pretrained(run)
    newest = Path(run, "checkpoints", "000000000096")
    assert (pretrained.url, pretrained.checkpoint) == (str(newest), newest.name)
    assert pretrained.weights == (newest / "ema.safetensors").read_bytes()
    assert (
        load_pretrained(run, weights="raw").weights
        == (newest / "model.safetensors").read_bytes()
    )
    assert pretrained.samples == f"{run}/samples"


def test_a_damaged_checkpoint_is_passed_over_and_named(run):
    newest = Path(run, "checkpoints", "000000000096")
    (newest / "ema.safetensors").write_bytes(b"cut")
    pretrained = load_pretrained(run)
    assert pretrained.checkpoint == "000000000048"
    assert any(
        note.startswith(f"skipped: checkpoint {newest} is damaged") for note in pretrained.notes
    )
    with pytest.raises(
        ValueError, match="000000000096 is damaged: ema.safetensors has 3 bytes"
    ):
        load_pretrained(str(newest))
    (Path(run, "checkpoints", "000000000048") / "state.json").unlink()
    with pytest.raises(ValueError, match="none of its 2 checkpoints is whole"):
        load_pretrained(run)


def test_a_checkpoint_is_itself(run):
    pretrained = load_pretrained(f"{run}/checkpoints/000000000048/")
    assert pretrained.checkpoint == "000000000048" and pretrained.samples == f"{run}/samples"
    assert "note: the network has seen 48 of the run's 480 images" in pretrained.notes
    with pytest.raises(
        ValueError, match="is no finished checkpoint.* 000000000096, 0000000000"
    ):
        load_pretrained(f"{run}/checkpoints/000000000049")


def test_of_an_earlier_checkpoint_its_average_alone_is_read(run):
    earlier = Path(run, "checkpoints", "000000000048")
    (earlier / "optimizer.safetensors").write_bytes(b"cut")
    found = load_pretrained(str(earlier))
    assert found.weights == (earlier / "ema.safetensors").read_bytes()
    assert found.weights != load_pretrained(run).weights


def test_the_name_of_a_run_is_taken_from_a_url_too(run):
    there = Storage("memory://origin/noise")
    for file in Path(run).rglob("*"):
        if file.is_file():
            there.write_bytes(file.relative_to(run).as_posix(), file.read_bytes())
    assert load_pretrained(there.url).weights == load_pretrained(run).weights


@pytest.mark.slow
def test_a_model_of_mlflow_is_its_average_weights(run, tmp_path, monkeypatch):
    from cbdm_scale.tracking.client import make_client
    from cbdm_scale.tracking.models import register

    uri = make_database(tmp_path)
    client = make_client(uri)
    home = client.create_experiment("e", artifact_location=str(tmp_path / "artifacts"))
    run_id = client.create_run(home).info.run_id
    checkpoint = f"{run}/checkpoints/000000000048"
    register(client, Storage(run), run_id, 48, checkpoint, ["best"])
    for name in ("models:/noise@best", f"runs:/{run_id}/models/000000000048"):
        pretrained = load_pretrained(name, tracking_uri=uri)
        assert pretrained.weights == load_pretrained(checkpoint).weights
        assert pretrained.config == load_pretrained(checkpoint).config
        assert pretrained.samples.endswith("cbdm_scale/samples")
    with pytest.raises(ValueError, match=r"run \(models:/other@best\) is not to be had.*other"):
        load_pretrained("models:/other@best", tracking_uri=uri)
    with pytest.raises(ValueError, match=r"weights \(raw\) are not in a model of MLflow"):
        load_pretrained("models:/noise@best", weights="raw", tracking_uri=uri)


def test_a_checkpoint_of_the_papers_code_is_read(tmp_path):
    net = random_net(CONFIGS[0].values[0])
    path = save(tmp_path / "ckpt_3.pt", to_paper_names(net))
    pretrained = load_pretrained(str(path))
    assert pretrained.spec.image_shape == (3, 8, 8) and pretrained.spec.num_classes == 5
    assert pretrained.config.diffusion.num_steps == 50 == pretrained.config.sample.num_steps
    again = pretrained.build()
    for name, tensor in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert find_training_data(pretrained, "") == (None, "")
    out = str(tmp_path / "sets")
    words = ["--run", str(path), "--num-images", "5", "--out", out, "--cluster.workers", "0"]
    assert main([*words, "--sample.num-steps", "2"]) == 0
    assert len(list(Path(out).glob("step3-ddim2-*/png-5/*/*.png"))) == 5


def test_a_third_party_file_that_does_not_say_its_size_is_asked_for_it(tmp_path):
    weights = to_paper_names(random_net(CONFIGS[0].values[0]))
    path = str(save(tmp_path / "a.pt", weights, fixed_x_T=None))
    with pytest.raises(ValueError, match="does not say how large .* --resolution 32"):
        load_pretrained(path)
    assert load_pretrained(path, resolution=16).spec.image_size == 16
    told = str(save(tmp_path / "b.pt", to_paper_names(random_net(CONFIGS[0].values[0]))))
    with pytest.raises(ValueError, match=r"resolution \(16\) is not that of .*, 8"):
        load_pretrained(told, resolution=16)


def test_what_is_no_run_is_said(run, tmp_path):
    runs = str(Path(run).parent)
    with pytest.raises(ValueError, match="run is missing. Give --run the folder"):
        load_pretrained("")
    with pytest.raises(ValueError, match=r"run \(/nowhere/at/all\) does not exist"):
        load_pretrained("/nowhere/at/all")
    with pytest.raises(ValueError, match=f"is no run: it has no config.json.*such as {run}"):
        load_pretrained(runs)
    with pytest.raises(ValueError, match="a.pt.* does not exist, or is no file"):
        load_pretrained(str(tmp_path / "a.pt"))
    with pytest.raises(ValueError, match="must be a local file. Copy it here first"):
        load_pretrained("s3://bucket/a.pt")
    with pytest.raises(ValueError, match=r"run \(nothing://here\) cannot be opened"):
        load_pretrained("nothing://here")


def test_a_run_without_a_checkpoint_is_told_how_to_get_one(run):
    Storage(run).remove("checkpoints")
    with pytest.raises(ValueError, match="no checkpoint yet.*--train.save-every"):
        load_pretrained(run)


def test_a_configuration_or_checkpoint_of_another_version_is_said(run):
    state = Path(run, "checkpoints", "000000000096", "state.json")
    about = json.loads(state.read_text())
    state.write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(ValueError, match="format version 99 is newer than ours"):
        load_pretrained(str(state.parent))
    config = Path(run, "config.json")
    config.write_text(config.read_text().replace('"tau"', '"tow"'))
    with pytest.raises(ValueError, match="config.json is damaged or of another version"):
        load_pretrained(run)


def test_a_training_set_that_changed_is_not_the_runs(run, digits_root):
    pretrained = load_pretrained(run)
    manifest, root = find_training_data(pretrained, "")
    assert manifest is not None and root == digits_root
    config = Path(run, "config.json")
    config.write_text(config.read_text().replace(pretrained.fingerprint, "0" * 16))
    assert find_training_data(load_pretrained(run), "") == (None, "")
    with pytest.raises(ValueError, match="there has fingerprint .* the run learnt from 0000"):
        find_training_data(load_pretrained(run), digits_root)


def test_a_data_set_whose_classes_are_others_is_not_what_a_network_learnt(run, digits_root):
    """Of a file that names its classes and no fingerprint."""
    pretrained = replace(load_pretrained(run), fingerprint="")
    assert find_training_data(pretrained, "")[0] is not None
    turned = replace(pretrained, class_names=pretrained.class_names[::-1])
    assert find_training_data(turned, "") == (None, "")
    with pytest.raises(ValueError, match="digits_lt there are 0, 1, .* learnt 9, 8, .* order"):
        find_training_data(turned, digits_root)


def keep_two(run: str) -> dict[str, torch.Tensor]:
    """Averages after 48 and 96 images, as a run would keep them; those after 96."""
    weights = load(Path(run, "checkpoints", "000000000096", "model.safetensors").read_bytes())
    pretrained = load_pretrained(run)
    net = build(pretrained.spec)
    net.load_state_dict(weights)
    averages = start_averages(net, wanted=True)
    for images in (48, 96):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(1.1)
        for average in averages:
            average.running.take(net, 1 - average.decay(images, 48))
        keep_averages(Storage(run), averages, images)
    return averages[0].averages


def test_weights_of_a_width_are_the_average_found_from_those_that_were_kept(run):
    kept, average = keep_two(run), load_pretrained(run, weights="power:0.05")
    tensors, usual = load(average.weights), load(load_pretrained(run).weights)
    assert tensors.keys() == usual.keys()
    for name, value in kept.items():
        assert torch.allclose(tensors[name], value.half().float(), atol=1e-3), name
    assert average.weights_sha256 != load_pretrained(run).weights_sha256


@pytest.mark.parametrize("weights", ["mean", "power:", "power:wide", "power:0.5"])
def test_other_weights_are_refused(run, weights):
    with pytest.raises(ValueError, match=rf"weights \({weights}\) must be ema"):
        load_pretrained(run, weights=weights)


def test_a_width_needs_averages_that_were_kept(run):
    with pytest.raises(ValueError, match=r"kept no averages after 96 images"):
        load_pretrained(run, weights="power:0.1")
