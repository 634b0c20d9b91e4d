"""Networks from what they are: every backbone is a denoiser.Net."""

from cbdm_scale.models.backbone import Backbone
from cbdm_scale.models.dit import DiT
from cbdm_scale.models.options import DiTConfig, SongConfig, UNetConfig, ViTConfig
from cbdm_scale.models.songunet import SongUNet
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.models.unet import UNet
from cbdm_scale.models.vit import ViT


def build(spec: NetworkSpec) -> Backbone:
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
