"""Networks from their options: every backbone is a denoiser.Net."""

from dataclasses import asdict, dataclass
from typing import Any, get_args

from torch import nn

from cbdm_scale.models.dit import DiT
from cbdm_scale.models.options import DiTConfig, ModelConfig, SongConfig, UNetConfig, ViTConfig
from cbdm_scale.models.songunet import SongUNet
from cbdm_scale.models.unet import UNet
from cbdm_scale.models.vit import ViT


def null_label(num_classes: int) -> int:
    """The label that means "none": K, the row after the classes'."""
    return num_classes


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What decides a network's layers: equal specs have weights of equal names and shapes."""

    model: ModelConfig
    channels: int
    """Of an image."""
    image_size: int
    """Height and width in pixels."""
    num_classes: int
    """K."""
    num_steps: int = 1000
    """T: whole-numbered levels lie in 0..T-1."""
    augment: bool = False
    """Whether images come with the nine numbers of ADA."""
    omega_max: float = 0.0
    """The largest guidance strength that it is told (TCFG); 0: it has no layer for that."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.channels, self.image_size, self.image_size

    def build(self) -> nn.Module:
        """The network with fresh weights. ValueError if the image does not fit the options."""
        return build(
            self.model,
            image_channels=self.channels,
            image_size=self.image_size,
            num_classes=self.num_classes,
            num_steps=self.num_steps,
            augment=self.augment,
            omega=self.omega_max > 0,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the model's class stands beside its options."""
        return asdict(self) | {"class": type(self.model).__name__}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> "NetworkSpec":
        """The inverse of ``to_dict``, also after JSON. KeyError, TypeError or ValueError."""
        classes = {one.__name__: one for one in get_args(ModelConfig)}
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in tree["model"].items()}
        plain = {k: v for k, v in tree.items() if k != "class"}
        return cls(**plain | {"model": classes[tree["class"]](**options)})


def build(
    config: ModelConfig,
    *,
    image_channels: int,
    image_size: int,
    num_classes: int,
    num_steps: int = 1000,
    augment: bool = False,
    omega: bool = False,
) -> nn.Module:
    """A network with fresh weights, for images of image_channels x image_size x image_size.

    ``num_steps`` is T: whole-numbered levels lie in 0..T-1. ``augment`` says whether images
    come with the nine numbers of ADA, ``omega`` whether the network is told a guidance strength
    (TCFG).
    """
    for name, value in [("image_channels", image_channels), ("num_classes", num_classes)]:
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}. Look into dataset.json.")
    if isinstance(config, UNetConfig | SongConfig):
        check_levels(config.multipliers, image_size)
    match config:
        case UNetConfig():
            return UNet(
                config,
                image_channels=image_channels,
                num_classes=num_classes,
                num_steps=num_steps,
                augment=augment,
                omega=omega,
            )
        case SongConfig():
            return SongUNet(
                config,
                image_channels=image_channels,
                num_classes=num_classes,
                num_steps=num_steps,
                augment=augment,
                omega=omega,
            )
        case DiTConfig():
            return DiT(
                config,
                image_channels=image_channels,
                image_size=image_size,
                num_classes=num_classes,
                augment=augment,
                omega=omega,
            )
        case ViTConfig():
            return ViT(
                config,
                image_channels=image_channels,
                image_size=image_size,
                num_classes=num_classes,
                augment=augment,
                omega=omega,
            )


def check_levels(multipliers: tuple[int, ...], image_size: int) -> None:
    """ValueError unless each level but the last can halve the image."""
    levels = len(multipliers)
    factor = 2 ** (levels - 1)
    if image_size < factor or image_size % factor:
        raise ValueError(
            f"model.multipliers {multipliers} has {levels} levels, which need an image "
            f"size divisible by {factor}, got {image_size}. Try fewer levels."
        )


def num_parameters(net: nn.Module) -> int:
    """Numbers that make up the network, the constant table of steps included.

    The paper's code counts that table too (128,000 of its 35,925,507), although it is not
    trained; for what an optimiser holds, count ``net.parameters()``.
    """
    tensors = [*net.parameters(), *net.buffers()]
    return sum(tensor.numel() for tensor in tensors)
