"""A network whose calls are replays of CUDA graphs: a call costs one launch, not hundreds."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net

Recorded = tuple[Callable[[], object], Tensor]
"""What does a call again with what its inputs hold by then, and where its result comes."""


def record(call: Callable[[], Tensor]) -> Recorded:
    """Capture a call whose tensors stay where they are, as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # libraries set themselves up, kernels are compiled
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads, as one that writes a checkpoint, may go on meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = call()
    return graph.replay, out


class GraphedNet:
    """A ``denoiser.Net``: the first call of each shape is recorded, every one is a replay.

    For networks that do not change, without gradients. Where a call cannot be recorded it says
    so, once, and calls the network as it is.
    """

    def __init__(self, net: Net, record: Callable[[Callable[[], Tensor]], Recorded] = record):
        self.net, self.record = net, record
        self.recorded: dict[object, tuple[list[Tensor | None], Recorded]] = {}
        self.refused = False

    def __call__(
        self,
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """As the network's own call."""
        given = x, level, y, omega, augment
        if self.refused:
            return self.net(*given)
        key = tuple(None if one is None else (one.shape, one.dtype) for one in given)
        if key not in self.recorded:
            inputs = [None if one is None else one.clone() for one in given]
            try:
                self.recorded[key] = inputs, self.record(lambda: self.net(*inputs))  # type: ignore[arg-type]
            except RuntimeError as error:
                self.refused = True
                self.recorded.clear()
                warnings.warn(f"sampling goes on without CUDA graphs: {error}", stacklevel=2)
                return self.net(*given)
        inputs, (replay, out) = self.recorded[key]
        for mine, one in zip(inputs, given, strict=True):
            if mine is not None and one is not None:
                mine.copy_(one)
        replay()
        return out.clone()
