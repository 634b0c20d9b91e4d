"""Ways to get the mean gradient of a step, each a function without arguments.

All use the product's own gradient code (`training.gradients.backward`) and loss; what differs
is how `DistributedDataParallel` is set up, which the product leaves at its defaults.
"""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.step import gradient_step, new_net
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.training.distributed import DistributedWorld

Step = Callable[[], None]
MIB = 2**20
PRODUCT, LOCAL = "DDP as the product sets it up", "no communication"
ALONE, ALONE_1 = "communication alone", "communication alone, buckets of 1 MiB"
SMALL, BF16 = "buckets of 1 MiB", "bf16 gradients"
MANY, MANY_LOCAL = "4 micro-batches", "4 micro-batches, no communication"


def bucketed(sizes: Iterable[int], cap: float) -> list[int]:
    """Bytes of DDP's buckets, for tensors of these bytes in the order that they become ready.

    A bucket is closed by the tensor with which it reaches the limit; the first one's limit is
    1 MiB, so that something is under way soon.
    """
    buckets, limit = [0], min(MIB, cap)
    for size in sizes:
        if buckets[-1] >= limit:
            buckets.append(0)
            limit = cap
        buckets[-1] += size
    return buckets


def buckets_of(net: nn.Module, cap_mib: float = 25) -> list[int]:
    """Of a network's gradients, which become ready from the last layer to the first."""
    return bucketed([4 * p.numel() for p in reversed(list(net.parameters()))], cap_mib * MIB)


def reduce_alone(buckets: list[int]) -> Step:
    """All-reduce buffers of these sizes in bytes, one behind the other as DDP queues them."""
    buffers = [torch.zeros(size // 4) for size in buckets]

    def step() -> None:
        for work in [dist.all_reduce(buffer, async_op=True) for buffer in buffers]:
            work.wait()

    return step


def make_variants(
    world: DistributedWorld, channels: int, images: int, names: list[str]
) -> dict[str, Step]:
    """Those of the variants that are named; of a single rank, those that reduce nothing.

    The network is the paper's U-Net with so many channels, once for each way to set up DDP, so
    that all live side by side.
    """

    def network() -> nn.Module:
        return new_net(channels).to(memory_format=torch.channels_last)

    def wrapped(bucket_mib: float) -> DistributedDataParallel:
        return DistributedDataParallel(
            network(),
            bucket_cap_mb=bucket_mib,
            gradient_as_bucket_view=True,
            forward_sync_buffers=False,
        )

    def in_bf16() -> DistributedDataParallel:
        net = wrapped(25)
        net.register_comm_hook(None, bf16_compress_hook)
        return net

    def step(net: nn.Module, *, reduce: bool = True, parts: int = 1) -> Step:
        cbdm = LossConfig(name="cbdm")
        gradient = gradient_step(net, cbdm, world, images * parts, parts=parts)

        def step() -> None:
            with world.no_sync(net, on=not reduce):
                gradient()

        if reduce:  # DDP orders its buckets after the first backward, at the next forward pass
            step()
            step()
        return step

    product = world.wrap(network())
    ways: dict[str, Callable[[], Step]] = {
        LOCAL: lambda: step(product, reduce=False),
        MANY_LOCAL: lambda: step(product, reduce=False, parts=4),
    }
    if isinstance(product, DistributedDataParallel):
        ways |= {
            PRODUCT: lambda: step(product),
            MANY: lambda: step(product, parts=4),
            SMALL: lambda: step(wrapped(1)),
            BF16: lambda: step(in_bf16()),
            ALONE: lambda: reduce_alone(buckets_of(product)),
            ALONE_1: lambda: reduce_alone(buckets_of(product, 1)),
        }
    return {name: ways[name]() for name in names if name in ways}
