"""The network that is exported, in memory."""

from safetensors.torch import load
from torch import nn

from cbdm_scale.pretrained.build import build_network
from cbdm_scale.pretrained.network import PretrainedNetwork


def network_of(origin: PretrainedNetwork) -> nn.Module:
    """With its trained weights, for sampling: a ``types.Net`` on the CPU."""
    net = build_network(origin.config, origin)
    net.load_state_dict(load(origin.weights))
    return net.eval().requires_grad_(False)
