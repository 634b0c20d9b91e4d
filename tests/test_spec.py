"""What a network is: by name, and what fits which images."""

from dataclasses import replace

import pytest
import torch
from network_tools import num_parameters
from torch import nn

from cbdm_scale.models.build import build
from cbdm_scale.models.dit import DiT
from cbdm_scale.models.options import UNetConfig, backbone_config
from cbdm_scale.models.songunet import SongUNet
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.models.unet import UNet
from cbdm_scale.models.vit import ViT

SMALL = UNetConfig(channels=16, multipliers=(1, 2), num_blocks=1, groups=8)
SPEC = NetworkSpec(model=SMALL, channels=3, image_size=8, num_classes=5)


def small(**sizes: int) -> nn.Module:
    torch.manual_seed(0)
    return build(replace(SPEC, **sizes))


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [("unet", UNet), ("ddpmpp", SongUNet), ("ncsnpp", SongUNet), ("dit", DiT), ("vit", ViT)],
)
def test_a_configuration_builds_its_backbone(backbone, kind):
    with torch.device("meta"):
        net = build(
            NetworkSpec(
                model=backbone_config(backbone), channels=3, image_size=32, num_classes=5
            )
        )
    assert isinstance(net, kind)


def test_the_table_of_steps_is_a_constant():
    net = small()
    learned = sum(parameter.numel() for parameter in net.parameters())
    assert learned == num_parameters(net) - 1000 * 16


def test_a_backbone_that_is_not_there_names_those_that_are():
    with pytest.raises(ValueError, match=r"backbone \(gan\).*unet, ddpmpp, ncsnpp, dit, vit"):
        backbone_config("gan")


@pytest.mark.parametrize("backbone", ["ddpmpp", "ncsnpp"])
def test_every_u_net_needs_images_that_halve(backbone):
    with pytest.raises(ValueError, match="divisible by 4, got 6. Try fewer levels"):
        build(
            NetworkSpec(
                model=backbone_config(backbone), channels=3, image_size=6, num_classes=5
            )
        )


@pytest.mark.parametrize("backbone", ["dit", "vit"])
def test_every_transformer_needs_images_that_patches_tile(backbone):
    config = backbone_config(backbone, patch=4)
    message = r"model.patch \(4\) must divide the image size \(25\). Try --model.patch 5"
    with pytest.raises(ValueError, match=message):
        build(NetworkSpec(model=config, channels=3, image_size=25, num_classes=5))


def test_the_label_none_is_the_last_row():
    assert SPEC.null_label == 5 == len(small().label.weight) - 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 9}, r"model.multipliers \(1, 2\) .* divisible by 2, got 9. Try fewer"),
        ({"image_size": 0}, "divisible by 2, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_images_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        small(**sizes)
