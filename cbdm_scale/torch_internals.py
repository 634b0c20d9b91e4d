"""The private parts of torch that this project uses, each tested in test_torch_internals.py.

Operations on lists of tensors: torch's own optimisers and its clipping call them, but make the
lists anew at each step, which takes longer than the operations of a small network. And the mode
in which tensors have shapes and no memory, which torch.compile works in.

All is as in torch 2.15, the oldest that is tested; what is gone is named by importing this.
After an upgrade mend what the tests name here, and nothing else.
"""

from typing import Any

import torch


def _find(name: str) -> Any:
    found = getattr(torch, name, None)
    if found is None:
        raise ImportError(
            f"torch {torch.__version__} has no {name}: mend cbdm_scale/torch_internals.py, or "
            "install the torch of constraints.txt."
        )
    return found


foreach_add_ = _find("_foreach_add_")
"""a += b for two lists, or a list and a number."""
foreach_sub = _find("_foreach_sub")
"""a - b for two lists."""
foreach_sub_ = _find("_foreach_sub_")
"""a -= b for two lists."""
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


def shapes_only() -> Any:
    """A context whose new tensors have shapes and no memory: ``FakeTensorMode``."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def compile_options() -> list[str]:
    """What torch.compile's usual backend takes as ``options``."""
    from torch._inductor import list_options

    return list(list_options())
