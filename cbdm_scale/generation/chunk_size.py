"""How many images are made at once, where nobody said it.

It decides an image's last bits, so it follows from the network and the kind of device alone:
any GPU, and as many of them as there are, make the same set.
"""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from cbdm_scale.devices import needs_memory
from cbdm_scale.models.build import build
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.sampling.sampler import CHUNK_SIZE
from cbdm_scale.torch_internals import DispatchMode, shapes_only, tree_leaves

MOST = 500
"""On a GPU: more at once are hardly faster."""
BYTES = 8 << 30
"""What a chunk may need of a GPU's memory in float32, guidance included, weights apart."""


class _LiveBytes(DispatchMode):  # type: ignore[misc]
    """Counts the memory of what operations make, while it is alive; ``most`` is the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: Any = WeakIdKeyDictionary()
        """Storage -> bytes."""
        self.most: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        before = {id(storage) for storage in _storages(args)}
        for storage in _storages(out):
            if id(storage) not in before:  # neither a view nor in place
                self.alive[storage] = storage.nbytes()
        self.most = max(self.most, sum(self.alive.values()))
        return out


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [one.untyped_storage() for one in tree_leaves(tree) if isinstance(one, Tensor)]


@cache
def bytes_an_image(network: NetworkSpec) -> int:
    """Peak memory of an image's activations in float32, found without allocating any."""
    with shapes_only(), torch.no_grad():
        net = build(network).eval()
        x = torch.empty(1, *network.image_shape)
        level, y = torch.empty(1), torch.zeros(1, dtype=torch.int64)
        with _LiveBytes() as memory:
            net(x, level, y)
    return int(memory.most)


def chunk_memory(option: str, num_images: int) -> AbstractContextManager[None]:
    """A ValueError names the chunk to try if a GPU is too small for so many images at once."""
    way_out = (
        f"Try --{option.replace('_', '-')} {num_images // 2}"
        if num_images > 1
        else "Try --cluster.device cpu"
    )
    return needs_memory(f"{num_images} images at once ({option})", way_out)


def usual_chunk_size(network: NetworkSpec, on_gpu: bool) -> int:
    """100 on CPUs; on GPUs as many as fit in 8 GiB with guidance, up to 500, by tens."""
    if not on_gpu:
        return CHUNK_SIZE
    fitting = BYTES // (2 * bytes_an_image(network))
    return int(max(1, min(MOST, fitting // 10 * 10 or fitting)))
