"""What a GPU would be waited for, seen without one.

On a CPU host and device are one memory. Here the device's is what it is told to be (weights,
batches) and all that is computed from it; reading a value of it, or choosing by one what shape
a tensor has, would wait. A copy that need not wait is its way to the host, and may be read once
the next step has been queued.
"""

import traceback
from contextlib import ExitStack

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
SHAPED_BY_VALUES = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.equal.default,
}
TO_HOST = {torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.numpy}
"""No operations of a CPU's own."""


class DeviceReads(TorchDispatchMode):
    """``with reads.counted():`` fills ``found`` with the lines of code that would wait."""

    def __init__(self, tensors):
        super().__init__()
        self.found, self.steps = [], 0
        self.device, self.host, self.kept = set(), {}, []
        self.mark(tensors)

    def mark(self, tensors):
        """These are the device's."""
        for tensor in tensors:
            self.kept.append(tensor)  # so that no address is used twice
            self.device.add(tensor.untyped_storage().data_ptr())

    def counted(self):
        """Both modes."""
        stack = ExitStack()
        stack.enter_context(_Calls(self))
        stack.enter_context(self)
        return stack

    def is_read(self, tensor):
        """Whether a value of it would have to come from the device now."""
        place = tensor.untyped_storage().data_ptr()
        return place in self.device or self.host.get(place) == self.steps

    def note(self):
        """Where we are in the code of the project or of a test."""
        ours = [
            frame
            for frame in traceback.extract_stack()
            if "/torch/" not in frame.filename and "wait_tools" not in frame.filename
        ]
        self.found.append(ours[-1].line)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
        waits = func in SHAPED_BY_VALUES or (
            func is aten.index.Tensor and any(v.dtype == torch.bool for v in given[1:])
        )
        if waits and any(map(self.is_read, given)):
            self.note()
        out = func(*args, **(kwargs or {}))
        if func is aten._fused_adam_.default or func is aten._fused_adam_.tensor_lr:
            self.steps += 1
        places = [v.untyped_storage().data_ptr() for v in given]
        if func is aten.copy_.default and (*args, False)[2] and places[0] not in self.device:
            self.kept.append(out)
            self.host[places[0]] = self.steps
        elif not self.device.isdisjoint(places):
            self.mark(v for v in tree_leaves(out) if isinstance(v, torch.Tensor))
        return out


class _Calls(TorchFunctionMode):
    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in TO_HOST and self.reads.is_read(args[0]):
            self.reads.note()
        return func(*args, **(kwargs or {}))
