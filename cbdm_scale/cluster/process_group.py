"""The process group of the workers, listening where it should and nowhere else."""

import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

from cbdm_scale.cluster.options import ClusterConfig

if TYPE_CHECKING:
    import torch


def join_group(config: ClusterConfig) -> "torch.device":
    """Form the process group of the workers; the device of this one.

    Rank 0's store listens on its node's address only, which is loopback on one machine: left
    to itself it would listen on all of them.
    """
    import ray
    import ray.train
    import torch.distributed as dist
    from ray.train.collective import broadcast_from_rank_zero

    from cbdm_scale.devices import open_device

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    address = ray.util.get_node_ip_address()
    if interface := interface_of(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault(
            "NCCL_SOCKET_IFNAME", f"={interface}"
        )  # =: this name and no other
    listener = None
    if rank == 0:
        listener = socket.create_server((address, 0), backlog=4 * size)
    here = listener.getsockname()[:2] if listener else None
    host, port = broadcast_from_rank_zero(here)
    timeout = timedelta(seconds=config.timeout_s)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host,
        port,
        size,
        is_master=rank == 0,
        timeout=timeout,
        master_listen_fd=listener.detach() if listener else None,
    )
    device = open_device(bool(ray.get_gpu_ids()))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    return device


def interface_of(address: str) -> str:
    """The network interface that has this address; "" if none has.

    gloo takes the address of the host's name otherwise, which often is loopback, where no other
    host reaches it; NCCL meets on the first interface that is none.
    """
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            return str(name)
    return ""
