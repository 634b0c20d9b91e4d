"""A run that starts from a trained network: what it takes over, says and refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from sampling_tools import MODEL, make_run
from test_third_party import CONFIGS, random_net, save, to_paper_names

from cbdm_scale.config.preset_file import PresetFile, preset_text
from cbdm_scale.config.run_options import resolve
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.pretrained.finetune import label_rows, resolve_init_from, write_initial_weights
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import build_state
from cbdm_scale.sampling.options import usual_sampler
from cbdm_scale.storage.folder import Storage
from cbdm_scale.train import main, parse, with_init_from
from cbdm_scale.training.checkpoint import load_initial, save_checkpoint


@pytest.fixture
def words(run, digits_root, tmp_path):
    storage = str(tmp_path / "runs")
    return [
        *("--init-from", run, "--data.root", digits_root, "--cluster.storage", storage),
        *("--eval.extractor", "none"),
    ]


def prepared(words):
    """(configuration, manifest, run's folder, lines) of a command, as before its launch."""
    parsed, init = with_init_from(parse(words))
    config = resolve(parsed.config)
    manifest = read_manifest(config.data.root, config.dataset)
    config, lines = resolve_init_from(config, init, manifest, chosen=parsed.chosen)
    folder = open_run_dir(config, manifest)
    lines += write_initial_weights(config, init, manifest, write=True)
    return config, manifest, folder, lines


def started(words):
    """The state that every rank of a command starts from, and what was said."""
    config, manifest, folder, lines = prepared(words)
    state = build_state(config, manifest, torch.device("cpu"))
    load_initial(folder, state.net, state.ema.net)
    return config, state, lines


def test_network_and_average_start_from_the_trained_average_and_nothing_else_does(words, run):
    config, state, lines = started(words)
    average = load(load_pretrained(run).weights)
    for net in (state.net, state.ema.net):
        assert net.state_dict().keys() == average.keys()
        for name, tensor in net.state_dict().items():
            assert torch.equal(tensor, average[name]), name
    assert state.progress.num_seen == 0 and not state.optimizer.state
    assert config.model == MODEL, "the network's options default to the trained network's"
    text = "\n".join(lines)
    assert "label rows by number: the same data set, 10 classes" in text
    assert "new      none" in text and "left     none" in text


def test_a_fresh_omega_layer_changes_nothing_bit_for_bit(words, run, digits_root):
    config, state, lines = started([*words, "--loss.tcfg", "--data.augment", "ada"])
    pretrained = load_pretrained(run)
    net = pretrained.build()
    net.to(memory_format=torch.channels_last)  # as a run's network is: other sums, other bits
    x, t, y = (
        torch.randn(4, 1, 8, 8),
        torch.tensor([0, 7, 500, 999]),
        torch.tensor([0, 3, 9, 10]),
    )
    told = {"omega": torch.rand(4), "augment": torch.randn(4, 9)}
    with torch.no_grad():
        before, after = net.eval()(x, t, y), state.ema.net(x, t, y, **told)
    assert torch.equal(before, after)
    assert "omega.linear_1.weight, omega.linear_2.weight: they add nothing yet" in lines[-2]


def test_what_the_new_network_has_no_place_for_is_left_and_named(words, tmp_path, digits_root):
    with_omega = make_run(tmp_path / "others", digits_root, row="tcfg")
    _, state, lines = started([*words, "--init-from", with_omega])
    assert "left     omega.linear_1.weight, omega.linear_2.weight" in lines[-1]


# ----------------------------------------------------------------------------
# Labels.


def test_label_rows_follow_the_names_of_classes_and_the_others_are_the_mean(run, digits_root):
    pretrained, here = load_pretrained(run), read_manifest(digits_root, "digits_lt")
    assert pretrained.class_names == here.class_names
    other = replace(
        here, source="another", class_names=("9", "ten", "0", *"abcdefg"), name="other"
    )
    rows, how = label_rows(pretrained, other, "auto")
    assert rows == [9, None, 0] + [None] * 7
    assert how == "by name: 2 of 10; from the mean row: ten, a, b, c, d and 3 more"
    assert label_rows(pretrained, other, "index")[0] == list(range(10))
    assert label_rows(pretrained, other, "mean")[0] == [None] * 10
    nameless = replace(
        pretrained,
        class_names=(),
        fingerprint="",
        config=replace(pretrained.config, dataset=""),
    )
    rows, how = label_rows(nameless, here, "auto")
    assert rows == [None] * 10 and "--init-labels index" in how


def test_a_run_that_kept_no_names_is_asked_for_its_data_set(run, digits_root):
    config = Path(run, "config.json")
    about = json.loads(config.read_text())
    config.write_text(json.dumps({k: v for k, v in about.items() if k != "classes"}))
    other = replace(read_manifest(digits_root, "digits_lt"), source="another")
    assert label_rows(load_pretrained(run), other, "auto")[0] == list(range(10))


def test_the_mean_row_is_of_the_classes_alone_and_none_stays_none(words, run):
    _, state, lines = started([*words, "--init-labels", "mean"])
    there = load(load_pretrained(run).weights)["label.weight"]
    here = state.net.state_dict()["label.weight"]
    assert torch.equal(here[:10], there[:10].mean(0).expand(10, -1))
    assert torch.equal(here[10], there[10])
    assert "all from the mean row (init_labels mean)" in "\n".join(lines)


# ----------------------------------------------------------------------------
# Options.


def test_y_prime_is_uniform_on_the_same_data_and_as_in_training_on_other_data(
    words, run, tmp_path
):
    config, *_, lines = prepared(words)
    assert config.loss.label_power == 0
    assert "loss.label_power 0 (bal: same data as the trained network's" in "\n".join(lines)
    config, *_, lines = prepared([*words, "--loss.label_power", "0.5"])
    assert config.loss.label_power == 0.5 and "label_power" not in "\n".join(lines)
    kept = tmp_path / "winner.json"
    options = {"loss.label_power": 0.25}
    kept.write_text(
        preset_text(PresetFile(dataset="digits_lt", preset="cbdm", options=options))
    )
    config, *_, lines = prepared([*words, "--config", str(kept)])
    assert config.loss.label_power == 0.25 and "label_power" not in "\n".join(lines)
    file = Path(run, "config.json")
    file.write_text(file.read_text().replace(load_pretrained(run).fingerprint, "0" * 16))
    config, *_, lines = prepared(words)
    assert config.loss.label_power == 1
    assert "loss.label_power 1 (train: other data" in "\n".join(lines)


def test_a_run_is_named_by_the_weights_it_started_from_and_not_by_their_place(
    words, run, tmp_path, digits_root
):
    name = prepared(words)[0].run_name
    shutil.copytree(run, tmp_path / "moved")
    assert prepared([*words, "--init-from", str(tmp_path / "moved")])[0].run_name == name
    other = make_run(tmp_path / "others", digits_root, images=(96,))
    assert prepared([*words, "--init-from", other])[0].run_name != name


def test_options_of_another_network_are_refused_by_name(words, capsys):
    assert main([*words, "--model.channels", "16", "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert "model.channels (16 here, 8 there) contradicts" in error
    assert "Leave the options of --model out" in error
    assert main([*words, "--model.dropout", "0.3", "--dry-run"]) == 0
    assert main([*words, "--init-sha256", "beef", "--dry-run"]) == 1
    assert "init_sha256 (beef) is not that of" in capsys.readouterr().err


def test_the_noise_is_the_trained_networks_and_another_one_is_refused(
    words, tmp_path, digits_root
):
    edm = make_run(tmp_path / "edm", digits_root, row="edm")
    config, *_ = prepared([*words[:1], edm, *words[2:], "--preset", "cbdm"])
    assert (config.process, config.loss.name) == ("edm", "cbdm")
    assert config.sample == usual_sampler("edm")
    for start, asked in ((words[1], ["--preset", "edm"]), (edm, ["--process", "ddpm"])):
        typed = ["--init-from", start, *words[2:], *asked]
        with pytest.raises(
            ValueError, match=r"process \(\w+\) contradicts the network of --in"
        ):
            prepared(typed)


def test_images_with_other_channels_are_refused_by_shape(words, tmp_path, capsys):
    colour = save(tmp_path / "a.pt", to_paper_names(random_net(CONFIGS[0].values[0])))
    assert main([*words, "--init-from", str(colour), "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert "head.weight has shape (32, 3, 3, 3) there, (32, 1, 3, 3) here" in error


def test_the_papers_own_code_is_a_start(words, tmp_path, capsys):
    grey = save(tmp_path / "a.pt", to_paper_names(random_net(CONFIGS[0].values[0], 1)))
    more = ["--init-from", str(grey), "--sample.num-steps", "5", "--dry-run"]
    assert main([*words, *more]) == 0
    said = capsys.readouterr().out
    assert "model.channels = 32" in said and "diffusion.num_steps = 50" in said
    assert (
        "all from the mean row, as the trained network does not know its classes' names" in said
    )


def test_what_is_no_network_is_said_of_init_from(capsys):
    assert main(["--init-from", "/nowhere/at/all", "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert "init_from (/nowhere/at/all) does not exist. Give --init-from the folder" in error


# ----------------------------------------------------------------------------
# Once it has begun.


def test_a_run_that_has_begun_does_without_that_network(words, run):
    first, manifest, folder, _ = prepared(words)
    shutil.rmtree(run)
    again, _, there, lines = prepared(words)
    assert again == first and there == folder
    assert "does not exist" in lines[0] and "can do without" in lines[0]
    with pytest.raises(ValueError, match="no run with these options has started from it"):
        prepared([*words, "--loss.tau", "0.5"])


def test_a_named_run_whose_network_changed_goes_on_with_its_own_weights(words, run):
    words += ["--name", "mine"]
    config, manifest, folder, _ = prepared(words)
    kept = folder.read_bytes("init.safetensors")
    state = build_state(config, manifest, torch.device("cpu"))
    state.progress.num_seen = 96
    save_checkpoint(Storage(run), state, {})
    again, _, _, lines = prepared(words)
    assert again.init_sha256 == config.init_sha256
    assert folder.read_bytes("init.safetensors") == kept
    assert "holds other weights now" in lines[0] and "goes on with its own" in lines[0]


def test_a_damaged_start_is_named(words):
    config, manifest, folder, _ = prepared(words)
    folder.write_bytes("init.safetensors", folder.read_bytes("init.safetensors") + b"x")
    with pytest.raises(ValueError, match="init.safetensors is damaged.*Remove both"):
        load_initial(folder, build_state(config, manifest, torch.device("cpu")).net)
