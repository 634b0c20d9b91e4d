import pytest
import torch

from cbdm_scale.models.dit import DiT, position_table
from cbdm_scale.models.options import DiTConfig
from cbdm_scale.models.spec import NetworkSpec


def tiny():
    torch.manual_seed(0)
    config = DiTConfig(patch=2, depth=2, width=32, heads=4)
    return DiT(config, NetworkSpec(model=config, channels=3, image_size=8, num_classes=4))


def shaken(net):
    """The zeros of its start made something else."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return net


def test_a_new_network_predicts_zero_and_every_block_is_the_identity():
    net = tiny()
    x, t, y = torch.randn(2, 3, 8, 8), torch.tensor([3, 500]), torch.tensor([0, 4])
    assert torch.equal(net(x, t, y), torch.zeros(2, 3, 8, 8))
    h, emb = torch.randn(2, 16, 32), torch.randn(2, 32)
    assert torch.equal(net.blocks[0](h, emb), h)


def test_a_pixel_comes_back_to_its_place():
    """With blocks and positions out of the way the network sees each patch for itself."""
    net = shaken(tiny())
    for block in net.blocks:
        torch.nn.init.zeros_(block.modulation.weight)
        torch.nn.init.zeros_(block.modulation.bias)
    net.positions.zero_()
    x = torch.randn(1, 3, 8, 8)
    other = x.clone()
    other[0, :, 2:4, 4:6] += 1
    t, y = torch.tensor([5]), torch.tensor([1])
    changed = (net(x, t, y) != net(other, t, y)).any(1)[0]
    assert changed[2:4, 4:6].any() and changed.sum() == changed[2:4, 4:6].sum()


def test_tokens_see_each_other_and_their_places():
    net = shaken(tiny())
    x = torch.randn(1, 3, 8, 8)
    t, y = torch.tensor([5]), torch.tensor([1])
    other = x.clone()
    other[0, :, 0:2, 0:2] += 1
    assert not torch.allclose(net(x, t, y)[..., 6:, 6:], net(other, t, y)[..., 6:, 6:])
    flipped = net(x.flip(-1), t, y).flip(-1)
    assert not torch.allclose(flipped, net(x, t, y), atol=1e-4)


def test_positions_are_sines_of_column_and_row():
    table = position_table(4, 16)
    assert table.shape == (16, 16)
    assert table[6, 0] == pytest.approx(torch.tensor(2.0).sin().item())  # column 2 of row 1
    assert table[6, 8] == pytest.approx(torch.tensor(1.0).sin().item())
    assert len({tuple(row) for row in table.tolist()}) == 16


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": "M"}, "model.size must be S, B, L or XL, got 'M'"),
        ({"patch": 0}, "model.patch must be at least 1"),
        ({"dropout": 1.0}, "model.dropout must be at least 0 and below 1"),
        ({"depth": -1}, "model.depth must be at least 0, got -1. 0 is that of --model.size"),
        (
            {"width": 100},
            r"model.width \(100\) .* by 4 and by model.heads \(6\). Try --model.width 96",
        ),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        DiTConfig(**options)


def test_depth_width_and_heads_are_the_sizes_unless_given():
    assert DiTConfig(size="L").shape == (24, 1024, 16)
    assert DiTConfig(size="L", depth=2, heads=8).shape == (2, 1024, 8)
    assert DiTConfig(size="B", width=64, heads=4).shape == (12, 64, 4)
