"""The private parts of torch that this project uses, each tested in test_torch_internals.py.

Operations on lists of tensors: torch's own optimisers and its clipping call them, but make the
lists anew at each step, which takes longer than the operations of a small network. The mode in
which tensors have shapes and no memory, which torch.compile works in, and the one that sees
every operation, which torch's own counter of FLOPs is made of.

All is as in torch 2.15, the oldest that is tested; what is gone is named by importing this.
After an upgrade mend what the tests name here, and nothing else.
"""

from importlib import import_module
from typing import Any

import torch


def _find(name: str, module: str = "torch") -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise ImportError(
            f"torch {torch.__version__} has no {name}: mend cbdm_scale/torch_internals.py, or "
            "install the torch of constraints.txt."
        ) from None


foreach_add_ = _find("_foreach_add_")
"""a += b for two lists, or a list and a number."""
foreach_sub = _find("_foreach_sub")
"""a - b for two lists."""
foreach_mul_ = _find("_foreach_mul_")
"""a *= b for a list and a number or a tensor ()."""
foreach_lerp_ = _find("_foreach_lerp_")
"""a += weight (b - a) for two lists and a number."""
foreach_copy_ = _find("_foreach_copy_")
"""a = b for two lists."""
foreach_norm = _find("_foreach_norm")
"""The 2-norm of each tensor of a list."""
fused_adam_ = _find("_fused_adam_")
"""A step of Adam for lists of parameters, gradients and moments, as torch.optim.Adam takes it
with ``fused``; a found_inf of 1 leaves all but the steps as they are."""

DispatchMode = _find("TorchDispatchMode", "torch.utils._python_dispatch")
"""Base of contexts whose ``__torch_dispatch__`` is called for every operation."""
tree_leaves = _find("tree_leaves", "torch.utils._pytree")
"""All values in nested lists, tuples and dictionaries."""


def shapes_only() -> Any:
    """A context whose new tensors have shapes and no memory: ``FakeTensorMode``."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def compile_options() -> list[str]:
    """What torch.compile's usual backend takes as ``options``."""
    from torch._inductor import list_options

    return list(list_options())
