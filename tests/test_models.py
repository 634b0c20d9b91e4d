"""Making networks: the paper's size, what fits which images, the same seed."""

import pytest
import torch
from torch import nn

from cbdm_scale.models import BACKBONES, UNet, UNetConfig, build, null_label, num_parameters

SMALL = UNetConfig(channels=16, multipliers=(1, 2), num_blocks=1, groups=8)


def small(**sizes: int) -> nn.Module:
    torch.manual_seed(0)
    return build(SMALL, **{"image_channels": 3, "image_size": 8, "num_classes": 5, **sizes})


def test_the_paper_s_network_has_35_925_507_parameters_and_the_none_row():
    with torch.device("meta"):
        net = build(UNetConfig(), image_channels=3, image_size=32, num_classes=100)
    assert num_parameters(net) == 35_925_507 + 512
    learned = sum(parameter.numel() for parameter in net.parameters())
    assert learned == num_parameters(net) - 1000 * 128  # less the table of steps, a constant


def test_backbones_are_known_by_name():
    assert BACKBONES["unet"] is UNetConfig


def test_a_configuration_builds_its_backbone():
    assert BACKBONES["unet"] is UNetConfig
    assert isinstance(small(), UNet)


def test_the_label_none_is_the_last_row():
    assert null_label(5) == 5 == len(small(num_classes=5).label.weight) - 1


def test_the_same_seed_makes_the_same_network():
    first, second = small().state_dict(), small().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 9}, r"model.multipliers \(1, 2\) .* divisible by 2, got 9. Try fewer"),
        ({"image_size": 0}, "divisible by 2, got 0"),
        ({"image_channels": 0}, "image_channels must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_images_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        small(**sizes)
