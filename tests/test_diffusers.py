"""Networks of the library diffusers: taken over where they are ours, refused by field."""

import json
from pathlib import Path

import pytest
import torch
from diffusers_tools import CONFIG, SCHEDULER, random_net, save_theirs
from safetensors.torch import load, load_file, save_file

from cbdm_scale.models.dit import DiT
from cbdm_scale.models.options import SIZES, DiTConfig, UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.diffusers_dit import (
    config_to_dit,
    dit_from_theirs,
    dit_pairs,
    dit_to_theirs,
)
from cbdm_scale.pretrained.diffusers_unet import (
    config_to_unet,
    to_ours,
    to_theirs,
    unet_from_theirs,
    unet_pairs,
    wave_order,
)
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.train import main

CONFIGS = [
    CONFIG,
    UNetConfig(channels=16, multipliers=(1, 1, 3), num_blocks=2, attention=(0, 2), groups=8),
    UNetConfig(channels=16, multipliers=(1,), num_blocks=1, attention=(), groups=4),
]
SIZE = dict(image_channels=3, image_size=8, num_classes=5)


def spec_of(config):
    return NetworkSpec(model=config, channels=3, image_size=8, num_classes=5)


@pytest.fixture
def tiny_dit(monkeypatch):
    monkeypatch.setitem(SIZES, "S", (2, 32, 4))
    return DiTConfig(step_shift=1)


# ----------------------------------------------------------------------------
# Without the library.


@pytest.mark.parametrize("config", CONFIGS)
def test_our_unet_under_their_names_comes_back_to_the_bit(config):
    net = random_net(config, channels=3, classes=5)
    about = config_to_unet(config, **SIZE)
    pairs = unet_pairs(list(net.state_dict()), config.channels, True)
    again, state = unet_from_theirs(about, to_theirs(pairs, net.state_dict()), none_row=True)
    assert again == config and state.keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_our_dit_under_their_names_comes_back_to_the_bit(tiny_dit):
    net, about = DiT(tiny_dit, spec_of(tiny_dit)), config_to_dit(tiny_dit, **SIZE)
    theirs = dit_to_theirs(tiny_dit, net.state_dict())
    config, state, notes = dit_from_theirs(about, theirs)
    assert config == tiny_dit and notes == [] and state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[name], t) for name, t in net.state_dict().items())
    table = "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight"
    theirs[table] = theirs[table] + 1
    with pytest.raises(ValueError, match="block 1 has a label.weight of its own"):
        dit_from_theirs(about, theirs)
    with pytest.raises(ValueError, match="norm_type is 'layer_norm'.* is 'ada_norm_zero'"):
        dit_from_theirs(about | {"norm_type": "layer_norm"}, theirs)


def test_sines_and_cosines_find_their_places():
    halves = torch.tensor([[10.0, 11.0, 20.0, 21.0]])  # sines 10 and 11, cosines 20 and 21
    assert halves[:, wave_order(4, False)].tolist() == [[10, 20, 11, 21]]
    assert halves[:, wave_order(4, True)].tolist() == [[20, 10, 21, 11]]


@pytest.mark.parametrize(
    ("field", "value", "needed"),
    [
        ("attention_head_dim", 8, "None"),
        ("time_embedding_type", "fourier", "'positional'"),
        ("freq_shift", 1, "0"),
        ("down_block_types", ["DownBlock2D", "ResnetDownsampleBlock2D"], "DownBlock2D"),
        ("down_block_types", ["DownBlock2D"], "one of each of 2 levels"),
        ("up_block_types", ["UpBlock2D", "UpBlock2D"], "AttnUpBlock2D"),
        ("norm_eps", 1e-6, "1e-05"),
        ("resnet_time_scale_shift", "scale_shift", "'default'"),
        ("downsample_padding", 0, "1"),
        ("class_embed_type", "timestep", "None"),
        ("num_class_embeds", None, "a number of classes"),
        ("out_channels", 2, "1"),
        ("add_attention", False, "True"),
    ],
)
def test_another_network_is_refused_by_the_field_that_makes_it_one(
    tmp_path, field, value, needed
):
    folder = save_theirs(tmp_path / "net", random_net(CONFIG), **{field: value})
    with pytest.raises(ValueError, match=f"UNet2DModel whose {field} is .*where.*is.*{needed}"):
        load_pretrained(folder)


def test_heads_as_wide_as_the_only_attended_level_are_one_head(tmp_path):
    folder = save_theirs(tmp_path / "net", random_net(CONFIG), attention_head_dim=32)
    assert load_pretrained(folder).config.model.channels == 16


def test_a_pipeline_names_its_noise_and_its_labels_are_all_classes(tmp_path):
    net = random_net(CONFIG)
    save_theirs(tmp_path / "p/unet", net)
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
    Path(tmp_path, "p/model_index.json").write_text(json.dumps(index))
    scheduler = Path(tmp_path, "p/scheduler/scheduler_config.json")
    scheduler.parent.mkdir()
    scheduler.write_text(json.dumps(SCHEDULER))
    pretrained = load_pretrained(str(tmp_path / "p"))
    assert pretrained.config.diffusion.num_steps == 500 and pretrained.spec.num_classes == 11
    table = pretrained.tensors["label.weight"]
    assert torch.equal(table[:11], net.state_dict()["label.weight"]) and not table[11].any()
    scheduler.write_text(json.dumps(SCHEDULER | {"prediction_type": "v_prediction"}))
    with pytest.raises(ValueError, match="prediction_type 'v_prediction': the noise must be"):
        load_pretrained(str(tmp_path / "p"))
    Path(tmp_path, "p/model_index.json").write_text(json.dumps(index | {"vae": []}))
    with pytest.raises(ValueError, match="has a vae: such a network draws codes"):
        load_pretrained(str(tmp_path / "p"))


def test_files_that_are_no_safetensors_or_do_not_fit_are_refused(tmp_path):
    folder = save_theirs(tmp_path / "net", random_net(CONFIG))
    file = Path(folder, "diffusion_pytorch_model.safetensors")
    weights = load_file(file)
    save_file({**weights, "extra": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"unknown extra, missing none"):
        load_pretrained(folder)
    save_file({**weights, "conv_in.bias": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"conv_in.bias has shape \(3,\), its config.json"):
        load_pretrained(folder)
    file.rename(Path(folder, "diffusion_pytorch_model.bin"))
    with pytest.raises(ValueError, match="safetensors alone.*safe_serialization=True"):
        load_pretrained(folder)
    Path(folder, "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(ValueError, match="it is a UNet2DConditionModel: UNet2DModel and DiT"):
        load_pretrained(folder)


def test_weights_in_several_files_are_one_network_and_lie_in_its_folder(tmp_path):
    folder = Path(save_theirs(tmp_path / "net", random_net(CONFIG)))
    whole = load_pretrained(str(folder)).weights
    file = folder / "diffusion_pytorch_model.safetensors"
    weights, index = load_file(file), Path(f"{file}.index.json")
    for part, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        save_file({name: weights[name] for name in names}, folder / f"part{part}.safetensors")
    places = {name: f"part{i % 2}.safetensors" for i, name in enumerate(sorted(weights))}
    index.write_text(json.dumps({"weight_map": places}))
    file.rename(tmp_path / "elsewhere.safetensors")
    parts, whole = load(load_pretrained(str(folder)).weights), load(whole)
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    places[sorted(weights)[0]] = "../elsewhere.safetensors"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ValueError, match="names ../elsewhere.* not a file of its folder"):
        load_pretrained(str(folder))


def test_training_starts_from_their_folder(tmp_path, digits_root, capsys):
    folder = save_theirs(tmp_path / "net", random_net(CONFIG))
    words = ["--init-from", folder, "--data.root", digits_root, "--eval.extractor", "none"]
    words += ["--cluster.storage", str(tmp_path / "runs"), "--init-labels", "index"]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "assumed the noise of DDPM" in said and "label rows by number: 10 of 10" in said


# ----------------------------------------------------------------------------
# With it.


def predictions(net, theirs, classes, channels):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, channels, 8, 8, generator=generator)
    t, y = torch.tensor([0, 10, 500, 999]), torch.tensor([0, 1, classes - 1, classes])
    with torch.no_grad():
        return net(x, t, y), theirs(x, t, y).sample


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", CONFIGS)
def test_their_unet_predicts_what_ours_does(config):
    diffusers = pytest.importorskip("diffusers", reason="the oracle: pip install .[oracle]")
    net = random_net(config, channels=3, classes=5)
    theirs = diffusers.UNet2DModel.from_config(config_to_unet(config, **SIZE)).eval()
    pairs = unet_pairs(list(net.state_dict()), config.channels, True)
    theirs.load_state_dict(to_theirs(pairs, net.state_dict()))
    a, b = predictions(net, theirs, 5, 3)
    assert a.abs().max() > 0.1 and (a - b).abs().max() < 1e-5
    other = diffusers.UNet2DModel.from_config(
        dict(theirs.config),
        flip_sin_to_cos=False,
        block_out_channels=theirs.config.block_out_channels,
    ).eval()
    _, state = unet_from_theirs(dict(other.config), other.state_dict(), none_row=True)
    net.load_state_dict(state)
    a, b = predictions(net, other, 5, 3)
    assert (a - b).abs().max() < 1e-5


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_their_dit_predicts_what_ours_does(tiny_dit):
    diffusers = pytest.importorskip("diffusers", reason="the oracle: pip install .[oracle]")
    theirs = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=3,
        out_channels=6,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=5,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        emb = theirs.transformer_blocks[0].norm1.emb
        theirs.transformer_blocks[1].norm1.emb.load_state_dict(emb.state_dict())
    config, state, notes = dit_from_theirs(dict(theirs.config), theirs.state_dict())
    assert config == tiny_dit and "left the variance" in notes[-1]
    net = DiT(config, spec_of(config)).eval()
    net.load_state_dict(state)
    a, b = predictions(net, theirs, 5, 3)
    assert a.abs().max() > 0.1 and (a - b[:, :3]).abs().max() < 1e-4 * a.abs().max()
    assert to_ours(dit_pairs(list(state)), dit_to_theirs(config, state)).keys() == state.keys()
