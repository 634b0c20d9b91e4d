"""Features from the middle of every backbone, and the projection that only training has."""

import pytest
import torch
from gloo_tools import tiny_config
from safetensors.torch import load
from test_backbones import K, batch, every_backbone, shaken, tiny
from torch import nn

from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.build import build
from cbdm_scale.models.options import backbone_config
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import run_rank
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.distributed import World


def middle_of(net):
    """The last module before the features leave."""
    return net.middle[-1] if hasattr(net, "middle") else net.blocks[(len(net.blocks) - 1) // 2]


@every_backbone
def test_the_features_are_what_leaves_the_middle_and_the_prediction_is_the_same(backbone):
    net, seen = shaken(tiny(backbone)).eval(), []
    x, t, y = batch()
    plain = net(x, t, y)
    middle_of(net).register_forward_hook(lambda module, given, out: seen.append(out))
    out, h = net(x, t, y, features=True)
    assert torch.equal(out, plain)
    if backbone in ("dit", "vit"):  # tokens; the first of a ViT is none of the image's
        expected = seen[0].transpose(1, 2)[:, :, -16:]
    else:
        expected = seen[0].flatten(2)
    assert torch.equal(h, expected) and h.shape == (4, net.feature_width, 16)


@pytest.mark.parametrize("backbone", ["dit", "vit"])
@pytest.mark.parametrize(("depth", "middle"), [(1, 0), (2, 0), (3, 1), (12, 5)])
def test_the_middle_block_of_a_transformer_is_half_way(backbone, depth, middle):
    config = backbone_config(backbone, patch=4, depth=depth, width=16, heads=2)
    net = build(NetworkSpec(model=config, channels=1, image_size=8, num_classes=K)).eval()
    seen = []
    for block in net.blocks:
        block.register_forward_hook(lambda module, given, out: seen.append(out))
    _, h = net(
        torch.randn(2, 1, 8, 8), torch.tensor([0, 9]), torch.tensor([0, K]), features=True
    )
    assert torch.equal(h, seen[middle].transpose(1, 2)[:, :, -4:])


@every_backbone
def test_the_projection_is_linear_on_the_mean_and_leaves_the_other_weights(backbone):
    net = tiny(backbone)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    net.add_projection(6)
    added = net.state_dict()
    assert added.keys() - before.keys() == {"projection.weight", "projection.bias"}
    assert all(torch.equal(added[name], t) for name, t in before.items())
    x, t, y = batch()
    _, h, z = net.eval()(x, t, y, features=True)
    torch.testing.assert_close(z, nn.functional.linear(h.mean(2), *net.projection.parameters()))
    assert isinstance(net(x, t, y), torch.Tensor)


def test_features_are_a_part_of_the_compiled_graph():
    net = shaken(tiny("vit")).eval()
    net.add_projection(6)
    x, t, y = batch()
    whole = torch.compile(net, backend="eager", dynamic=False, fullgraph=True)
    found, expected = whole(x, t, y, features=True), net(x, t, y, features=True)
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


FILES = RunDir.MODEL, RunDir.EMA, RunDir.OPTIMIZER


def run_of(root, storage, steps):
    """All terms that want features, so that the projection is learnt."""
    config = tiny_config(root, str(storage), "run", steps=steps, dropout=0.1, save_steps=2)
    terms = LossConfig(coral=0.5, ccua_contrast=1.0, dispersive=0.25)
    config = type(config)(**{**vars(config), "loss": terms})
    folder = open_run_dir(config, read_manifest(root, config.dataset))
    how = run_rank(World(), print, print, config=config, tracking_uri="", run_id="")
    assert how["how"] == "finished"
    return config, folder


def test_the_projection_is_learnt_averaged_and_resumed_and_left_out_when_loaded(
    digits_root, tmp_path
):
    config, unbroken = run_of(digits_root, tmp_path / "whole", 4)
    run_of(digits_root, tmp_path / "broken", 2)
    _, resumed = run_of(digits_root, tmp_path / "broken", 4)
    ends = [RunDir(folder).checkpoints()[-1] for folder in (unbroken, resumed)]
    files = [
        {file: load(folder.read_bytes(f"{end}/{file}")) for file in FILES}
        for folder, end in zip((unbroken, resumed), ends, strict=True)
    ]
    for file, tensors in files[0].items():
        assert tensors.keys() == files[1][file].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, files[1][file][name]), (file, name)
    model, ema = (files[0][file] for file in (RunDir.MODEL, RunDir.EMA))
    assert {"exp_avg.projection.weight"} < files[0][RunDir.OPTIMIZER].keys()
    first = load(unbroken.read_bytes(f"{RunDir(unbroken).checkpoints()[0]}/{RunDir.MODEL}"))
    assert not torch.equal(first["projection.weight"], model["projection.weight"])
    assert not torch.equal(ema["projection.weight"], model["projection.weight"])

    found = load_pretrained(unbroken.url)
    assert found.spec == network_spec(config, read_manifest(digits_root, config.dataset))
    assert found.build().projection is None
    assert found.tensors.keys() == {name for name in ema if not name.startswith("projection.")}
