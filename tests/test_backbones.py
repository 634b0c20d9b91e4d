"""What every backbone promises: the call of ``denoiser.Net``, whatever is inside.

Each is made so small that a call takes milliseconds, and moved away from its start.
"""

import copy

import pytest
import torch
from network_tools import num_parameters
from torch import Tensor, nn

from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.build import build
from cbdm_scale.models.dit import DiT
from cbdm_scale.models.options import BACKBONES, DiTConfig, backbone_config
from cbdm_scale.models.spec import NetworkSpec

K = 5
U_NET = {"channels": 16, "multipliers": (1, 2), "num_blocks": 1, "attention": (1,)}
TRANSFORMER = {"patch": 2, "depth": 2, "width": 32, "heads": 4}
TINY = {
    "unet": {**U_NET, "groups": 8},
    "ddpmpp": U_NET,
    "ncsnpp": U_NET,
    "dit": TRANSFORMER,
    "vit": TRANSFORMER,
}
LAYERS = {"omega.linear_1.weight", "omega.linear_2.weight"}
"""TCFG's, as they are called in every network."""

every_backbone = pytest.mark.parametrize("backbone", BACKBONES)


def tiny(backbone: str, dropout: float = 0.0, size: int = 8, **conditions: float) -> nn.Module:
    """With fresh weights."""
    torch.manual_seed(0)
    config = backbone_config(backbone, **{**TINY[backbone], "dropout": dropout})
    return build(
        NetworkSpec(model=config, channels=3, image_size=size, num_classes=K, **conditions)
    )


def shaken(net: nn.Module) -> nn.Module:
    """Moves every weight, as training would: fresh networks predict almost exactly 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net


def batch(size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(2))
    return x, torch.tensor([0, 3, 500, 999]), torch.tensor([0, 4, 2, K])


def published(backbone: str, classes: int, size: int = 32, **options: object) -> int:
    """Numbers of a network for RGB images, less the rows of its labels."""
    config = backbone_config(backbone, **options)
    with torch.device("meta"):
        net = build(NetworkSpec(model=config, channels=3, image_size=size, num_classes=classes))
    return num_parameters(net) - net.label.weight.numel()


def published_dit(size: str, patch: int) -> int:
    """Latents of 32 x 32 x 4 with predicted variance, 1,000 classes and "none"."""
    config = DiTConfig(size=size, patch=patch)
    with torch.device("meta"):
        net = DiT(
            config,
            NetworkSpec(model=config, channels=4, image_size=32, num_classes=1000),
            out_channels=8,
        )
    return num_parameters(net)


def test_there_is_a_tiny_one_of_every_backbone():
    assert set(TINY) == set(BACKBONES)


# ----------------------------------------------------------------------------
# Sizes.


@pytest.mark.parametrize(
    ("count", "expected", "digits"),
    [
        # The paper's code, with its table of steps and 100 rows of 512.
        pytest.param(lambda: published("unet", 100) + 100 * 512, 35_925_507, 0, id="unet"),
        # EDM's Table 7, in millions to one digit, without labels.
        pytest.param(lambda: published("ddpmpp", 1), 55.7e6, -5, id="ddpmpp"),
        pytest.param(lambda: published("ncsnpp", 1), 56.4e6, -5, id="ncsnpp"),
        pytest.param(
            lambda: published("ddpmpp", 1, 64, multipliers=(1, 2, 2, 2), attention=(2,)),
            61.8e6,
            -5,
            id="ddpmpp-64",
        ),
        # The authors' count, less a norm and a linear layer that classify into 10 classes.
        pytest.param(
            lambda: published("vit", 10),
            11_185_068 - (2 * 384 + 384 * 10 + 10),
            0,
            id="vit",
        ),
        # Table 1 of DiT in whole millions, and the published weights of XL/2.
        pytest.param(lambda: published_dit("S", 2), 33e6, -6, id="dit-S"),
        pytest.param(lambda: published_dit("S", 8), 33e6, -6, id="dit-S8"),
        pytest.param(lambda: published_dit("B", 4), 130e6, -6, id="dit-B"),
        pytest.param(lambda: published_dit("L", 2), 458e6, -6, id="dit-L"),
        pytest.param(lambda: published_dit("XL", 2), 675_129_632, 0, id="dit-XL"),
    ],
)
def test_parameters_are_as_many_as_published(count, expected, digits):
    assert round(count(), digits) == expected


# ----------------------------------------------------------------------------
# What is heard.


@every_backbone
@pytest.mark.parametrize("size", [4, 8])
def test_the_prediction_has_the_shape_of_the_image(backbone, size):
    x, t, y = batch(size)
    out = shaken(tiny(backbone, size=size))(x, t, y)
    assert out.shape == x.shape and out.isfinite().all()


@every_backbone
def test_image_step_and_label_reach_the_prediction(backbone):
    net, (x, t, y) = shaken(tiny(backbone)), batch()
    out = net(x, t, y)
    for other in (net(x.flip(0), t, y), net(x, t ^ 1, y), net(x, t, (y + 1) % (K + 1))):
        assert ((out - other).abs().amax((1, 2, 3)) > 1e-4).all()


@every_backbone
def test_every_pixel_reaches_every_pixel(backbone):
    net, (x, t, y) = shaken(tiny(backbone)), batch()
    other = x.clone()
    other[..., 0, 0] += 1
    difference = (net(x, t, y) - net(other, t, y)).abs().amax((0, 1))
    assert (difference > 0).all()


@every_backbone
def test_an_images_prediction_does_not_depend_on_its_batch(backbone):
    net, (x, t, y) = shaken(tiny(backbone)), batch()
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(x, t, y), alone, rtol=1e-5, atol=1e-5)


@every_backbone
def test_levels_may_be_edms(backbone):
    """c_noise = ln(sigma) / 4 is a floating-point number, negative for small noise."""
    net, (x, _, y) = shaken(tiny(backbone)), batch()
    level = torch.tensor([-1.55, -0.3, 0.0, 1.1], dtype=torch.float64)
    out = net(x, level, y)
    assert out.dtype == x.dtype and out.isfinite().all()
    assert ((net(x, level + 0.1, y) - out).abs().amax((1, 2, 3)) > 1e-5).all()


@every_backbone
def test_a_label_beyond_none_is_an_error(backbone):
    x, t, y = batch()
    with pytest.raises(IndexError):
        tiny(backbone)(x, t, torch.full_like(y, K + 1))


@every_backbone
def test_no_augmentation_is_nine_zeros_and_other_parameters_are_heard(backbone):
    net, (x, t, y) = shaken(tiny(backbone, augment=True)), batch()
    out = net(x, t, y)
    torch.testing.assert_close(net(x, t, y, augment=torch.zeros(4, 9)), out)
    for augmented in torch.eye(9):
        assert (net(x, t, y, augment=augmented.expand(4, 9)) - out).abs().max() > 1e-5
    with pytest.raises(ValueError, match="no augment layer. Try --data.augment ada"):
        tiny(backbone)(x, t, y, augment=torch.zeros(4, 9))


@every_backbone
def test_strength_zero_is_no_strength_to_the_bit_and_others_are_heard(backbone):
    """Also after training, and image by image."""
    net, (x, t, y) = shaken(tiny(backbone, omega_max=1.0)), batch()
    out = net(x, t, y)
    assert torch.equal(net(x, t, y, omega=torch.zeros(4)), out)
    mixed = net(x, t, y, omega=torch.tensor([0.0, 0.3, 1.0, 0.0]))
    assert torch.equal(mixed[[0, 3]], out[[0, 3]])
    assert ((mixed - out).abs().amax((1, 2, 3))[1:3] > 1e-5).all()
    with pytest.raises(ValueError, match="omega was given.*Train one with --loss.tcfg"):
        tiny(backbone)(x, t, y, omega=torch.ones(4))


@every_backbone
def test_a_fresh_omega_layer_changes_nothing_bit_for_bit(backbone):
    """On a trained network: every strength gives what the network gave without the layer."""
    plain, (x, t, y) = shaken(tiny(backbone, augment=True)), batch()
    net = tiny(backbone, augment=True, omega_max=1.0)
    missing = net.load_state_dict(plain.state_dict(), strict=False)
    assert set(missing.missing_keys) == LAYERS and not missing.unexpected_keys
    assert torch.equal(net(x, t, y, omega=torch.tensor([0.0, 0.3, 1.0, 2.0])), plain(x, t, y))


@every_backbone
def test_the_layers_of_a_strength_leave_the_other_weights_of_the_seed(backbone):
    plain, net = tiny(backbone, augment=True), tiny(backbone, augment=True, omega_max=1.0)
    assert set(net.state_dict()) - set(plain.state_dict()) == LAYERS
    for name, tensor in plain.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name


# ----------------------------------------------------------------------------
# Training.


@every_backbone
@pytest.mark.parametrize("augmented", [False, True])
def test_no_parameter_is_unused_by_cbdm_and_tcfg(backbone, augmented):
    """DDP would refuse the second step."""
    net = shaken(tiny(backbone, augment=augmented, omega_max=1.0))
    schedule = LinearSchedule(ScheduleConfig())
    config = LossConfig(name="cbdm", tcfg=True)
    loss, drawer = build_loss(config, schedule, torch.tensor([60, 25, 10, 5, 1]), 5, 6)
    x0, y = torch.randn(6, 3, 8, 8), torch.arange(6) % K
    draws = drawer(torch.arange(6), (3, 8, 8), torch.device("cpu"))
    assert not draws.dropped.all()
    terms = loss(net, x0, y, draws)
    terms["total"].mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    silent = {name for name, p in net.named_parameters() if not p.grad.any()}
    assert silent == ({"augment.weight"} if augmented else set())


@every_backbone
def test_dropout_acts_in_training_only(backbone):
    net, (x, t, y) = shaken(tiny(backbone, dropout=0.5)), batch()
    assert not torch.equal(net(x, t, y), net(x, t, y))
    net.eval()
    assert torch.equal(net(x, t, y), net(x, t, y))


@every_backbone
def test_the_weights_are_all_that_there_is_to_save(backbone):
    """Constants are computed: an average or a checkpoint of parameters is a whole network."""
    net = tiny(backbone)
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}


@every_backbone
def test_the_same_seed_makes_the_same_network(backbone):
    first, second = tiny(backbone).state_dict(), tiny(backbone).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# ----------------------------------------------------------------------------
# Precision and memory formats.


def run(net: nn.Module, x: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
    """Prediction and all gradients in one row."""
    _, t, y = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = net(x, t, y)
    out.square().mean().backward()
    return out.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])


@every_backbone
@pytest.mark.parametrize(
    ("memory_format", "bf16", "tolerance"),
    [
        pytest.param(torch.channels_last, False, 1e-5, id="channels_last"),
        pytest.param(torch.contiguous_format, True, 0.03, id="bf16"),
        pytest.param(torch.channels_last, True, 0.03, id="channels_last bf16"),
    ],
)
def test_layout_and_precision_change_the_result_by_rounding_only(
    backbone, memory_format, bf16, tolerance
):
    """Relative to the norm of the prediction, and to that of all gradients."""
    net, x = shaken(tiny(backbone)), batch()[0]
    other = copy.deepcopy(net).to(memory_format=memory_format)
    expected = run(net, x, bf16=False)
    found = run(other, x.contiguous(memory_format=memory_format), bf16=bf16)
    if backbone in ("unet", "ddpmpp", "ncsnpp"):
        assert found[0].is_contiguous(memory_format=memory_format)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert ((a - b).norm() / b.norm()).item() < tolerance


@every_backbone
def test_the_prediction_is_not_rounded_to_bf16(backbone):
    """The losses compare predictions that differ little."""
    net, (x, t, y) = shaken(tiny(backbone)), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x, t, y)
        emb = net.embed(t, y, None)
    assert (out != out.bfloat16().float()).any()
    exact = copy.deepcopy(net).double().embed(t, y, None)
    torch.testing.assert_close(emb, exact.float(), rtol=1e-4, atol=1e-5)
