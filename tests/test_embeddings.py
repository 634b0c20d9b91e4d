"""What the network is told: steps as waves, labels as rows, and a row for "none"."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cbdm_scale.models.build import build as build_net
from cbdm_scale.models.embeddings import (
    OmegaEmbedding,
    TimeEmbedding,
    init_xavier,
    label_embedding,
    sinusoid,
)
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.paper_checkpoint import load_paper_checkpoint

REFERENCE = Path(__file__).parents[2] / "shared" / "data" / "cbdm_checkpoint"


def test_sinusoid_interleaves_sines_and_cosines_of_falling_frequency():
    table = sinusoid(torch.tensor([0, 7, 999]), 8)
    for row, t in zip(table, [0, 7, 999], strict=True):
        for i in range(4):
            angle = t * 10000 ** (-2 * i / 8)
            assert row[2 * i].item() == pytest.approx(math.sin(angle), abs=2e-4)
            assert row[2 * i + 1].item() == pytest.approx(math.cos(angle), abs=2e-4)


def test_whole_and_floating_levels_agree_and_levels_between_them_exist():
    time = TimeEmbedding(16, 64, num_steps=1000)
    t = torch.tensor([0, 1, 999])
    torch.testing.assert_close(time(t.float()), time(t))
    assert not torch.allclose(time(t + 0.5), time(t), atol=1e-3)


def test_a_step_beyond_the_table_is_an_error():
    with pytest.raises(IndexError):
        TimeEmbedding(16, 64, num_steps=10)(torch.tensor([10]))


def test_a_fresh_row_for_none_adds_nothing():
    torch.manual_seed(0)
    weight = label_embedding(5, 64).weight
    assert weight.shape == (6, 64)
    assert weight.requires_grad
    assert not weight[5].any()
    assert weight[:5].std().item() == pytest.approx(1, abs=0.15)


def test_the_gain_shrinks_what_a_layer_starts_with():
    torch.manual_seed(0)
    layer = init_xavier(nn.Linear(100, 200), gain=0.1)
    bound = 0.1 * math.sqrt(6 / 300)
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert not layer.bias.any()
    assert init_xavier(nn.Linear(9, 4, bias=False)).bias is None


# ----------------------------------------------------------------------------
# Guidance strength.


def test_a_fresh_strength_adds_nothing_and_can_learn_at_once():
    torch.manual_seed(0)
    omega = OmegaEmbedding(16, 64)
    out = omega(torch.tensor([0.0, 0.3, 1.0, 4.0]))
    assert out.shape == (4, 64) and not out.any()
    out.sum().backward()
    assert omega.linear_2.weight.grad.any()


def test_strength_zero_adds_exactly_nothing_whatever_was_learnt():
    for seed in range(5):
        torch.manual_seed(seed)
        omega = OmegaEmbedding(16, 64)
        with torch.no_grad():
            for parameter in omega.parameters():
                parameter.copy_(10 * torch.randn_like(parameter))
        out = omega(torch.tensor([0.0, 0.5, 0.0, 1.0, -0.0]))
        assert not out[[0, 2, 4]].any()
        assert (out[[1, 3]].norm(dim=1) > 1).all()


def test_strengths_are_told_apart():
    """The six of the paper and those between them, beyond 1 too."""
    torch.manual_seed(0)
    omega = OmegaEmbedding(16, 64)
    nn.init.normal_(omega.linear_2.weight)
    out = omega(torch.linspace(0, 4, 41))
    assert torch.pdist(out).min() > 0.1


def test_a_strength_is_the_sinusoid_less_that_of_zero_through_two_layers():
    torch.manual_seed(0)
    omega = OmegaEmbedding(4, 8)
    nn.init.normal_(omega.linear_2.weight)
    w = 0.37
    waves = [math.sin(10 * w), math.cos(10 * w) - 1, math.sin(0.1 * w), math.cos(0.1 * w) - 1]
    hidden = omega.linear_1.weight @ torch.tensor(waves)
    expected = omega.linear_2.weight @ (hidden * hidden.sigmoid())
    torch.testing.assert_close(omega(torch.tensor([w]))[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no checkpoint of the paper at {REFERENCE}")
def test_a_fresh_layer_on_a_trained_network_changes_nothing_bit_for_bit():
    """So that TCFG can be taught to any trained conditional network."""
    read = load_paper_checkpoint(REFERENCE / "ckpt_3.pt")
    data = {k: torch.from_numpy(v) for k, v in np.load(REFERENCE / "ckpt_3.npz").items()}
    spec = NetworkSpec(
        model=read.config,
        channels=read.image_channels,
        image_size=32,
        num_classes=read.num_classes,
    )
    before, after = (
        build_net(replace(spec, omega_max=omega_max)).eval() for omega_max in (0.0, 1.0)
    )
    before.load_state_dict(read.state_dict)
    missing, unexpected = after.load_state_dict(read.state_dict, strict=False)
    assert not unexpected and all(name.startswith("omega.") for name in missing)
    x_t, t, y = data["x_t"], data["t"], data["y"]
    with torch.no_grad():
        expected = before(x_t, t, y)
        for omega in (None, torch.zeros(len(y)), torch.linspace(0, 2, len(y))):
            assert torch.equal(after(x_t, t, y, omega), expected)
