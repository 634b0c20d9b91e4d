"""Networks from what they are: every backbone is a denoiser.Net."""

from torch import nn

from cbdm_scale.models.dit import DiT
from cbdm_scale.models.options import DiTConfig, SongConfig, UNetConfig, ViTConfig
from cbdm_scale.models.songunet import SongUNet
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.models.unet import UNet
from cbdm_scale.models.vit import ViT


def build(spec: NetworkSpec) -> nn.Module:
    """The network with fresh weights, from torch's global generator."""
    match spec.model:
        case UNetConfig() as config:
            return UNet(config, spec)
        case SongConfig() as config:
            return SongUNet(config, spec)
        case DiTConfig() as config:
            return DiT(config, spec)
        case ViTConfig() as config:
            return ViT(config, spec)


def num_parameters(net: nn.Module) -> int:
    """Numbers that make up the network, the constant table of steps included.

    The paper's code counts that table too (128,000 of its 35,925,507), although it is not
    trained; for what an optimiser holds, count ``net.parameters()``.
    """
    tensors = [*net.parameters(), *net.buffers()]
    return sum(tensor.numel() for tensor in tensors)
