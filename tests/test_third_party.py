"""Checkpoints of the paper's own code: what is read, how it is named, what is refused."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cbdm_scale.models.build import build
from cbdm_scale.models.embeddings import sinusoid
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.paper_checkpoint import (
    PaperCheckpoint,
    load_paper_checkpoint,
    paper_names,
)

REFERENCE = Path(__file__).parents[2] / "shared" / "data" / "cbdm_checkpoint"
TABLE = "time_embedding.timembedding.0.weight"
K, T = 5, 50

CONFIGS = [
    pytest.param(UNetConfig(channels=32, multipliers=(1, 2), num_blocks=1), False, id="small"),
    pytest.param(
        UNetConfig(channels=32, multipliers=(1, 2, 1), num_blocks=2, attention=(0, 2)),
        True,
        id="deep",
    ),
    pytest.param(
        UNetConfig(channels=64, multipliers=(1,), num_blocks=3, attention=()),
        False,
        id="one level",
    ),
]


def random_net(config: UNetConfig, image_channels: int = 3, augment: bool = False) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    net = build(
        NetworkSpec(
            model=config,
            channels=image_channels,
            image_size=8,
            num_classes=K,
            num_steps=T,
            augment=augment,
        )
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        net.label.weight[K].zero_()
    return net.eval()


def to_paper_names(net: nn.Module) -> "OrderedDict[str, Tensor]":
    """The weights of our network as the paper's code would have saved them."""
    state = net.state_dict()
    foreign = OrderedDict([(TABLE, sinusoid(torch.arange(T), net.config.channels))])
    for ours, theirs in paper_names(net.config, list(state)).items():
        tensor = state[ours][:K] if ours == "label.weight" else state[ours]
        for name, part in zip(theirs, tensor.chunk(len(theirs)), strict=True):
            foreign[name] = part.clone()
    return foreign


def save(path: Path, weights: dict[str, Tensor], **entries: Any) -> Path:
    content = {
        "net_model": {name: tensor + 1 for name, tensor in weights.items()},
        "ema_model": weights,
        "sched": {"last_epoch": 3},
        "optim": {"state": {}, "param_groups": []},
        "step": 3,
        "fixed_x_T": torch.zeros(4, 3, 8, 8),
        **entries,
    }
    torch.save({name: value for name, value in content.items() if value is not None}, path)
    return path


def rebuild(read: PaperCheckpoint) -> nn.Module:
    net = build(
        NetworkSpec(
            model=read.config,
            channels=read.image_channels,
            image_size=read.image_size or 8,
            num_classes=read.num_classes,
            num_steps=read.num_steps,
            augment=read.augment,
        )
    )
    net.load_state_dict(read.state_dict, strict=True)
    return net.eval()


@pytest.fixture
def weights() -> "OrderedDict[str, Tensor]":
    return to_paper_names(random_net(UNetConfig(channels=32, multipliers=(1, 2), num_blocks=1)))


# ----------------------------------------------------------------------------
# What is read.


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no checkpoint of the paper at {REFERENCE}")
def test_predictions_agree_with_the_paper_s_code():
    read = load_paper_checkpoint(REFERENCE / "ckpt_3.pt")
    assert read.config == UNetConfig(channels=32, multipliers=(1, 2), num_blocks=1)
    assert (read.num_classes, read.num_steps, read.image_size, read.step) == (10, 1000, 32, 3)
    data = {k: torch.from_numpy(v) for k, v in np.load(REFERENCE / "ckpt_3.npz").items()}
    net = rebuild(read)
    with torch.no_grad():
        cond = net(data["x_t"], data["t"], data["y"])
        uncond = net(data["x_t"], data["t"], torch.full_like(data["y"], 10))
    assert (cond - data["eps_cond"]).abs().max() < 1e-5
    assert (uncond - data["eps_uncond"]).abs().max() < 1e-5


@pytest.mark.parametrize(("config", "augment"), CONFIGS)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_network_written_in_their_names_comes_back(tmp_path, config, augment, prefix):
    net = random_net(config, image_channels=1, augment=augment)
    foreign = {prefix + name: tensor for name, tensor in to_paper_names(net).items()}
    read = load_paper_checkpoint(save(tmp_path / "ckpt.pt", foreign))
    assert (read.config, read.augment) == (config, augment)
    assert (read.num_classes, read.image_channels, read.num_steps) == (K, 1, T)
    assert read.state_dict.keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(read.state_dict[name], tensor), name
    x, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 4, K])
    t = torch.tensor([0, 7, T - 1])
    told = torch.randn(3, 9) if augment else None
    assert torch.equal(rebuild(read)(x, t, y, augment=told), net(x, t, y, augment=told))


def test_the_names_are_those_of_the_paper_s_code():
    config = UNetConfig(channels=32, multipliers=(1, 2), num_blocks=1)
    names = paper_names(config, list(random_net(config).state_dict()))
    assert names["down.1.blocks.0.conv_2.weight"] == ("downblocks.2.block2.3.weight",)
    assert names["down.0.resample.bias"] == ("downblocks.1.main.bias",)
    assert names["up.1.blocks.1.shortcut.weight"] == ("upblocks.4.shortcut.weight",)
    assert names["middle.0.attention.qkv.weight"] == tuple(
        f"middleblocks.0.attn.proj_{part}.weight" for part in "qkv"
    )


def test_net_reads_the_raw_weights(tmp_path, weights):
    raw = to_paper_names(random_net(UNetConfig(channels=32, multipliers=(1, 2), num_blocks=1)))
    for name in raw.keys() - {TABLE}:
        raw[name] += 1
    path = save(tmp_path / "ckpt.pt", weights, net_model=raw)
    ema, net = load_paper_checkpoint(path), load_paper_checkpoint(path, which="net")
    torch.testing.assert_close(net.state_dict["head.bias"], ema.state_dict["head.bias"] + 1)


def test_the_report_says_what_was_mapped_added_and_assumed(tmp_path, weights):
    read = load_paper_checkpoint(save(tmp_path / "ckpt.pt", weights))
    text = "\n".join(read.report)
    mapped = sum(int(line.split()[1]) for line in read.report if line.startswith("mapped"))
    assert mapped == len(weights) - 1  # all but the constant table
    for words in (
        "32 channels, multipliers 1-2, 1 residual blocks a level, attention at levels [1]",
        "added label row 5",
        "assumed model.dropout 0.1",
        "left aside: fixed_x_T, net_model, optim, sched, step",
    ):
        assert words in text
    mapping = paper_names(read.config, list(read.state_dict))
    assert sorted(name for names in mapping.values() for name in names) == sorted(
        weights.keys() - {TABLE}
    )


# ----------------------------------------------------------------------------
# What is refused.


def test_unknown_and_missing_tensors_are_named(tmp_path, weights):
    weights["omega_embedding.weight"] = torch.zeros(2)
    path = save(tmp_path / "ckpt.pt", weights)
    with pytest.raises(ValueError, match="omega_embedding.weight, missing tensors none"):
        load_paper_checkpoint(path)
    del weights["tail.2.bias"]
    save(path, weights)
    message = "unknown tensors omega_embedding.weight, missing tensors tail.2.bias"
    with pytest.raises(ValueError, match=message):
        load_paper_checkpoint(path)


def test_attention_missing_from_one_block_of_a_level_is_named(tmp_path, weights):
    for name in [name for name in weights if name.startswith("upblocks.1.attn.")]:
        del weights[name]
    with pytest.raises(ValueError, match="missing tensors upblocks.1.attn.group_norm.bias"):
        load_paper_checkpoint(save(tmp_path / "ckpt.pt", weights))


@pytest.mark.parametrize("name", ["label_embedding.weight", "head.weight", TABLE])
def test_a_file_without_what_the_configuration_is_read_from_is_refused(tmp_path, weights, name):
    del weights[name]
    with pytest.raises(ValueError, match=rf"missing tensors \['{name}'\]"):
        load_paper_checkpoint(save(tmp_path / "ckpt.pt", weights))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tail.2.bias", lambda w: w[:2], r"tail.2.bias has shape \(2,\).*needs \(3,\)"),
        ("tail.2.bias", lambda w: w * torch.nan, "tail.2.bias holds values .* not finite"),
        ("tail.2.bias", lambda w: w.long(), "tail.2.bias is not a tensor of floating"),
        ("middleblocks.0.attn.proj_k.weight", lambda w: w[:9], r"proj_k.weight has shape \(9"),
        ("head.weight", lambda w: w[0, 0, 0], "head.weight has 1 axes instead of 4"),
        (TABLE, lambda w: w.flip(1), f"{TABLE} is not the interleaved sinusoid"),
        (TABLE, lambda w: w[:, :16], f"{TABLE} is not the interleaved sinusoid"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, weights, name, change, message):
    weights[name] = change(weights[name])
    with pytest.raises(ValueError, match=message):
        load_paper_checkpoint(save(tmp_path / "ckpt.pt", weights))


def test_levels_of_different_depth_are_refused(tmp_path, weights):
    shift = {"downblocks.1.": "downblocks.2.", "downblocks.2.": "downblocks.3."}
    moved = OrderedDict()
    for name, tensor in weights.items():
        start = next((old for old in shift if name.startswith(old)), "")
        moved[shift.get(start, "") + name.removeprefix(start)] = tensor
        if name.startswith("downblocks.0."):
            moved[name.replace("downblocks.0.", "downblocks.1.")] = tensor
    with pytest.raises(ValueError, match=r"its levels have 2, 1 residual blocks"):
        load_paper_checkpoint(save(tmp_path / "ckpt.pt", moved))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"ema_model": None}, "it has no ema_model. Expected"),
        ({"scaler": {}}, r"unknown entries scaler"),
        ({"ema_model": {}}, "ema_model holds no weights"),
        ({"ema_model": 3}, "ema_model holds no weights"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, weights, entries, message):
    with pytest.raises(ValueError, match=message):
        load_paper_checkpoint(save(tmp_path / "ckpt.pt", weights, **entries))


def test_a_bare_state_dict_or_list_is_refused(tmp_path, weights):
    torch.save(weights, tmp_path / "bare.pt")
    with pytest.raises(ValueError, match="not a checkpoint of the paper's code: unknown"):
        load_paper_checkpoint(tmp_path / "bare.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="it holds a list. Expected a dictionary"):
        load_paper_checkpoint(tmp_path / "list.pt")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_refused(tmp_path, weights, share):
    path = save(tmp_path / "ckpt.pt", weights)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="ckpt.pt cannot be read .* damaged or cut short"):
        load_paper_checkpoint(path)


def test_a_flipped_bit_is_noticed(tmp_path, weights):
    path = save(tmp_path / "ckpt.pt", weights)
    content = bytearray(path.read_bytes())
    value = weights["middleblocks.0.block1.2.weight"].numpy().tobytes()
    content[content.index(value) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read .*damaged.*wrong checksum"):
        load_paper_checkpoint(path)


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path, weights):
    """torch packs nothing; a file of zeros would be a thousand times as large in memory."""
    path = save(tmp_path / "ckpt.pt", weights, fixed_x_T=torch.zeros(90_000, 3, 8, 8))
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in parts.items():
            new.writestr(name, data)
    with pytest.raises(ValueError, match="its parts are compressed, which torch never does"):
        load_paper_checkpoint(path)


class Intruder:
    """Runs code when it is unpickled without restriction."""

    def __reduce__(self):
        return (Path.touch, (Path("intruder-was-here"),))


def test_pickled_classes_are_never_loaded(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "ckpt.pt", weights, sched=Intruder())
    with pytest.raises(ValueError, match="pickled classes, which are never loaded"):
        load_paper_checkpoint(path)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Intruder()))
    with pytest.raises(ValueError, match="pickled classes, which are never loaded"):
        load_paper_checkpoint(tmp_path / "plain.pt")
    assert not (tmp_path / "intruder-was-here").exists()


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pt"):
        load_paper_checkpoint(tmp_path / "nothing.pt")
