"""A trained network as sampling calls it: its device's layout, precision, and graphs."""

from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.kernels import is_eager
from cbdm_scale.models.cast import cast_weights
from cbdm_scale.sampling.graphed import GraphedNet


def sampling_net(
    net: nn.Module, device: torch.device, precision: Literal["fp32", "bf16"]
) -> Net:
    """A network on ``device``, which learns no more, for samplers: without gradients.

    bf16 is autocast, with weights that are cast once. On a GPU it is a copy in channels_last,
    and its calls are replays of CUDA graphs.
    """
    bf16, on_gpu = precision == "bf16", device.type == "cuda"
    if bf16:
        net = cast_weights(net)
    if on_gpu:
        net = deepcopy(net).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def call(
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        with torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=bf16, cache_enabled=False
        ):
            out: Tensor = net(x, level, y, omega, augment)
        return out

    return GraphedNet(call) if on_gpu and not is_eager() else call
