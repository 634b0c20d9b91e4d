"""Whether a process uses the project's own kernels, or torch's operations one by one."""

import os


def is_eager() -> bool:
    """Whether the user wants torch's own operations only: ``CBDM_SCALE_EAGER=1``.

    This leaves out the project's kernels and the CUDA graphs of sampling.
    """
    return os.environ.get("CBDM_SCALE_EAGER", "") not in ("", "0")
