"""Batches on their way to the device; numbers on their way back.

Shapes: n = images of a micro-batch, C, H, W = image.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cbdm_scale.data.loader import Batch, to_x0
from cbdm_scale.losses.draws import Drawer, Packed
from cbdm_scale.losses.term import Draws


@dataclass(frozen=True)
class MicroBatch:
    """Images that go through the network at once, on its device, as they were sent there.

    What they are trained on is made there: ``x0`` and ``draws`` compute it at each call.
    """

    x: Tensor  # (n, C, H, W) uint8, or float32 in [-1, 1]
    mirrored: Tensor | None  # (n,) bool, of x
    y: Tensor  # (n,) int64
    drawn: Packed
    draw: Drawer
    layout: torch.memory_format

    @property
    def x0(self) -> Tensor:
        """(n, C, H, W) float32 in [-1, 1], in the network's layout."""
        return to_x0(self.x, self.mirrored).contiguous(memory_format=self.layout)

    @property
    def draws(self) -> Draws:
        """The random numbers of the images."""
        return self.draw.on_device(self.drawn, tuple(self.x.shape[1:]))

    @property
    def tensors(self) -> list[Tensor]:
        """All that it is made of."""
        found = (self.x, self.mirrored, self.y, self.drawn.data)
        return [tensor for tensor in found if tensor is not None]

    @property
    def shapes(self) -> tuple[object, ...]:
        """What is the same for all micro-batches that one graph can read."""
        return (*((tensor.shape, tensor.dtype) for tensor in self.tensors), self.drawn.layout)

    def clone(self) -> "MicroBatch":
        """The same in memory of its own."""
        mirrored = None if self.mirrored is None else self.mirrored.clone()
        drawn = replace(self.drawn, data=self.drawn.data.clone())
        return replace(self, x=self.x.clone(), mirrored=mirrored, y=self.y.clone(), drawn=drawn)


class Transfer:
    """Brings batches to a device on a stream of its own, while the step before computes.

    Host memory is pinned, and nothing waits: ``begin`` queues everything, and ``finish`` makes
    the stream of the step wait, not the host.
    """

    def __init__(
        self, draw: Drawer, device: torch.device, *, micro_batch: int, channels_last: bool
    ):
        self.draw, self.device, self.micro_batch = draw, device, micro_batch
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def begin(self, batch: Batch) -> list[MicroBatch]:
        """The micro-batches of a batch; usable after ``finish``.

        Their images are equally spaced: so each holds the same number of those of a window
        (`HostDraws.window`), as the ranks do.
        """
        n = len(batch.y)
        num_parts = -(-n // (self.micro_batch or n))
        parts = [slice(first, None, num_parts) for first in range(num_parts)]
        with nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            return [self._part(batch, part) for part in parts]

    def finish(self, parts: list[MicroBatch]) -> list[MicroBatch]:
        """The same, for what is queued from now on."""
        if self.stream is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_stream(self.stream)
            for part in parts:
                for tensor in part.tensors:
                    tensor.record_stream(now)
        return parts

    def _part(self, batch: Batch, part: slice) -> MicroBatch:
        images = batch.sample_ids[part].contiguous()
        augment = None if batch.augment is None else batch.augment[part].contiguous()
        return MicroBatch(
            self._move(batch.x[part]),
            None if batch.mirrored is None else self._move(batch.mirrored[part]),
            self._move(batch.y[part]),
            self.draw.on_host(images, augment).to(self.device),
            self.draw,
            self.layout,
        )

    def _move(self, tensor: Tensor) -> Tensor:
        tensor = tensor.contiguous()
        pinned = tensor if self.stream is None else tensor.pin_memory()
        return pinned.to(self.device, non_blocking=True)


class HostCopy:
    """A number of the device on its way to the host, to be read when it is there.

    ``tensor.item()`` waits for everything that was queued before it; this only for what was
    queued before the copy was begun.
    """

    def __init__(self, value: Tensor):
        on_gpu = value.device.type == "cuda"
        self.value = torch.empty((), dtype=value.dtype, pin_memory=on_gpu)
        self.value.copy_(value, non_blocking=True)
        self.event = torch.cuda.Event() if on_gpu else None
        if self.event is not None:
            self.event.record()

    def read(self) -> float:
        """The number."""
        if self.event is not None:
            self.event.synchronize()
        return self.value.item()
