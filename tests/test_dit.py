import pytest
import torch

from cbdm_scale.models.dit import SIZES, DiT, DiTConfig, position_table


def tiny(monkeypatch, **options):
    monkeypatch.setitem(SIZES, "S", (2, 32, 4))
    torch.manual_seed(0)
    config = DiTConfig(size="S", patch=options.pop("patch", 2))
    return DiT(config, image_channels=3, image_size=8, num_classes=4, **options)


def shaken(net):
    """The zeros of its start made something else."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return net


@pytest.mark.parametrize(
    ("size", "patch", "millions"),
    [("S", 2, 33), ("S", 8, 33), ("B", 4, 130), ("L", 2, 458), ("XL", 2, 675)],
)
def test_parameters_are_as_many_as_published(size, patch, millions):
    """Latents of 32 x 32 x 4 with predicted variance, 1,000 classes (Table 1)."""
    with torch.device("meta"):
        net = DiT(
            DiTConfig(size=size, patch=patch),
            image_channels=4,
            image_size=32,
            num_classes=1000,
            out_channels=8,
        )
    count = sum(p.numel() for p in net.parameters()) + net.positions.numel()
    assert round(count / 1e6) == millions
    if (size, patch) == ("XL", 2):
        assert count == 675_129_632


def test_a_new_network_predicts_zero_and_every_block_is_the_identity(monkeypatch):
    net = tiny(monkeypatch)
    x, t, y = torch.randn(2, 3, 8, 8), torch.tensor([3, 500]), torch.tensor([0, 4])
    assert torch.equal(net(x, t, y), torch.zeros(2, 3, 8, 8))
    h, emb = torch.randn(2, 16, 32), torch.randn(2, 32)
    assert torch.equal(net.blocks[0](h, emb), h)


def test_a_pixel_comes_back_to_its_place(monkeypatch):
    """With blocks and positions out of the way the network sees each patch for itself."""
    net = shaken(tiny(monkeypatch))
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


def test_tokens_see_each_other_and_their_places(monkeypatch):
    net = shaken(tiny(monkeypatch))
    x = torch.randn(1, 3, 8, 8)
    t, y = torch.tensor([5]), torch.tensor([1])
    other = x.clone()
    other[0, :, 0:2, 0:2] += 1
    assert not torch.allclose(net(x, t, y)[..., 6:, 6:], net(other, t, y)[..., 6:, 6:])
    flipped = net(x.flip(-1), t, y).flip(-1)
    assert not torch.allclose(flipped, net(x, t, y), atol=1e-4)


def test_step_and_label_matter(monkeypatch):
    net = shaken(tiny(monkeypatch))
    x = torch.randn(1, 3, 8, 8)
    t, y = torch.tensor([5]), torch.tensor([1])
    base = net(x, t, y)
    assert not torch.allclose(net(x, t + 300, y), base)
    assert not torch.allclose(net(x, t, y + 1), base)
    assert not torch.allclose(net(x, t, torch.tensor([4])), base)
    torch.testing.assert_close(net(x, t.float(), y), base)


def test_strength_zero_is_no_strength_to_the_bit_and_others_are_heard(monkeypatch):
    net = shaken(tiny(monkeypatch, omega=True))
    x, t, y = torch.randn(3, 3, 8, 8), torch.tensor([3, 5, 900]), torch.tensor([0, 1, 2])
    base = net(x, t, y)
    assert torch.equal(net(x, t, y, torch.zeros(3)), base)
    told = net(x, t, y, torch.tensor([0.0, 0.4, 1.0]))
    assert torch.equal(told[0], base[0])
    assert ((told - base).abs().amax((1, 2, 3))[1:] > 1e-4).all()
    torch.nn.init.zeros_(net.omega.linear_2.weight)  # as a new layer
    assert torch.equal(net(x, t, y, torch.ones(3)), base)
    with pytest.raises(ValueError, match="omega was given.*Train one with --loss.tcfg"):
        tiny(monkeypatch)(x, t, y, torch.ones(3))


def test_every_parameter_has_a_gradient(monkeypatch):
    net = shaken(tiny(monkeypatch, augment=True, omega=True))
    net(torch.randn(2, 3, 8, 8), torch.tensor([3, 5]), torch.tensor([0, 4])).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_bf16_agrees_with_fp32(monkeypatch):
    net = shaken(tiny(monkeypatch))
    x, t, y = torch.randn(4, 3, 8, 8), torch.tensor([3, 5, 7, 900]), torch.tensor([0, 1, 2, 4])
    with torch.no_grad():
        exact = net(x, t, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(x, t, y)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.02


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
        ({"dropout": 1.0}, "model.dropout must lie in"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        DiTConfig(**options)


def test_a_patch_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"model.patch \(3\) must divide the image size \(8\)"):
        DiT(DiTConfig(patch=3), image_channels=3, image_size=8, num_classes=4)
