"""The random numbers of a batch: drawn on the host, in one piece, which moves in one copy.

Shapes: N = images, B = batch of all ranks, C, H, W = image, P = purposes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.process import Process
from cbdm_scale.losses.term import Draws, HostDraws, Term


@dataclass(frozen=True)
class Packed:
    """Named arrays in one piece of memory."""

    data: Tensor  # uint8
    layout: tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]
    """Alike for all steps whose shapes are."""

    def to(self, device: torch.device) -> "Packed":
        """The same on a device, in one copy; nothing waits."""
        data = self.data.pin_memory() if device.type == "cuda" else self.data
        return Packed(data.to(device, non_blocking=True), self.layout)

    def arrays(self) -> dict[str, Tensor]:
        """Views of the data, wherever it is: nothing is computed."""
        sizes = [dtype.itemsize * math.prod(shape) for _, dtype, shape in self.layout]
        parts = zip(self.layout, self.data.split(sizes), strict=True)
        return {name: part.view(dtype).view(shape) for (name, dtype, shape), part in parts}


def pack(arrays: Mapping[str, NDArray[Any]]) -> Packed:
    """Arrays on the host, the widest numbers first: so each begins at a multiple of its own."""
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    data = np.concatenate([a.reshape(-1).view(np.uint8) for _, a in ordered])
    layout = ((name, torch.from_numpy(a).dtype, a.shape) for name, a in ordered)
    return Packed(torch.from_numpy(data), tuple(layout))


@dataclass(frozen=True)
class Drawer:
    """Makes the `Draws` of images by the plan's rule, on the device that will use them."""

    process: Process
    terms: tuple[Term, ...]
    p_uncond: float
    seed: int
    batch_size: int  # B

    def __call__(
        self,
        images: Tensor,
        shape: tuple[int, ...],
        device: torch.device,
        augment: Tensor | None = None,
    ) -> Draws:
        """images (N,) int64 numbers since the run began; shape (C, H, W); augment (N, 9)."""
        return self.on_device(self.on_host(images, augment).to(device), shape)

    def on_host(self, images: Tensor, augment: Tensor | None = None) -> Packed:
        """Everything but the noise: few numbers, by one call of the generator."""
        numbers = images.numpy()
        first = numbers - numbers % self.batch_size  # of their step
        of_each = np.empty((len(self._purposes), len(numbers)), np.int64)
        of_each[:], of_each[self._purposes.index("window")] = numbers, first
        drawn = rng.first_uniform(self._keys, of_each)
        u = dict(zip(self._purposes, drawn, strict=True))

        dropped = u["label drop"] < self.p_uncond
        start = (u["window"] * self.batch_size).astype(np.int64)
        places = (numbers - first - start) % self.batch_size
        host = HostDraws(dropped, u, places, self.batch_size)
        t = self.process.step(torch.from_numpy(u["timestep"])).numpy()
        arrays: dict[str, NDArray[Any]] = {"images": numbers, "t": t, "dropped": dropped}
        if augment is not None:
            arrays["augment"] = augment.numpy()
        for term in self.terms:
            own = term.draw(host)
            assert not own.keys() & arrays.keys(), "two terms draw under one name"
            arrays |= own
        return pack(arrays)

    def on_device(self, packed: Packed, shape: tuple[int, ...]) -> Draws:
        """The draws on the device of ``packed``; can be captured in a graph.

        What is captured reads ``packed.data``, into which a later step's data may be copied
        if the layout is the same.
        """
        arrays = packed.arrays()
        images, t, dropped = (arrays.pop(name) for name in ("images", "t", "dropped"))
        eps = rng.normal(self.seed, "noise", images, math.prod(shape)).view(-1, *shape)
        augment = arrays.pop("augment", None)
        return Draws(t, eps, dropped, arrays, augment)

    @cached_property
    def _purposes(self) -> tuple[str, ...]:
        """What a number of each image is drawn for; "window" is one of each step."""
        own = [purpose for term in self.terms for purpose in term.purposes]
        purposes = ("timestep", "label drop", "window", *own)
        assert len(set(purposes)) == len(purposes), "two terms draw for one purpose"
        return purposes

    @cached_property
    def _keys(self) -> rng.Words:
        """(2, P)."""
        keys = [rng.make_key(self.seed, purpose) for purpose in self._purposes]
        return np.array(keys, np.uint64).T
