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


def fix_buckets(step: Step) -> None:
    """DDP orders its buckets after the first backward pass, at the next forward pass."""
    step()
    step()


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

    def wrapped(bucket_mib: float) -> DistributedDataParallel:
        net = new_net(channels).to(memory_format=torch.channels_last)
        return DistributedDataParallel(
            net,
            bucket_cap_mb=bucket_mib,
            gradient_as_bucket_view=True,
            forward_sync_buffers=False,
        )

    def step(net: nn.Module, *, reduce: bool = True, parts: int = 1) -> Step:
        cbdm = LossConfig(name="cbdm")
        gradient = gradient_step(net, cbdm, world, images * parts, parts=parts)

        def step() -> None:
            with world.no_sync(net, on=not reduce):
                gradient()

        return step

    product = world.wrap(new_net(channels).to(memory_format=torch.channels_last))
    made = {LOCAL: step(product, reduce=False)}
    made[MANY_LOCAL] = step(product, reduce=False, parts=4)
    if not isinstance(product, DistributedDataParallel):  # one rank
        return {name: made[name] for name in names if name in made}
    made |= {PRODUCT: step(product), MANY: step(product, parts=4)}
    fix_buckets(made[PRODUCT])
    made[ALONE] = reduce_alone(buckets_of(product))
    if SMALL in names:
        small = wrapped(1)
        made[SMALL] = step(small)
        fix_buckets(made[SMALL])
        made[ALONE_1] = reduce_alone(buckets_of(small, 1))
    if BF16 in names:
        half = wrapped(25)
        half.register_comm_hook(None, bf16_compress_hook)
        made[BF16] = step(half)
    return {name: made[name] for name in names if name in made}
