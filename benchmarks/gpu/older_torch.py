"""A GPU machine may have an older torch than the project asks for: names that have changed."""

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

import cbdm_scale.training.distributed as distributed


class _Renamed(DistributedDataParallel):
    """``forward_sync_buffers`` was ``broadcast_buffers`` before torch 2.14."""

    def __init__(self, *given: Any, forward_sync_buffers: bool = True, **named: Any) -> None:
        super().__init__(*given, broadcast_buffers=forward_sync_buffers, **named)


def allow() -> None:
    """Make the project's modules run on torch 2.11; nothing where torch is newer."""
    if torch.__version__ < torch.torch_version.TorchVersion("2.14"):
        distributed.DistributedDataParallel = _Renamed  # type: ignore[misc]
