"""The device of a process: float32 that is float32, and kernels that give the same bits again.

torch lets cuDNN round the inputs of float32 convolutions to TF32, with 10 bits of mantissa,
unless it is told otherwise; somebody may allow the same for products of matrices.
"""

import ctypes
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h."""


def _float32_operations() -> tuple[Any, ...]:
    """What has a ``fp32_precision`` of its own."""
    backends: Any = torch.backends
    return backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn


@contextmanager
def ieee_fp32() -> Iterator[None]:
    """Float32 products and convolutions of GPUs are IEEE's, whatever is allowed outside."""
    operations = _float32_operations()
    before = [operation.fp32_precision for operation in operations]
    for operation in operations:
        operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = precision


def open_device(on_gpu: bool) -> torch.device:
    """The device that this process computes on: its first GPU, or the CPU.

    From here on float32 is IEEE's in all of the process: only what asks for bf16 is rounded.
    RuntimeError in words for the user where torch cannot use the GPU.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if not on_gpu:
        _keep_freed_memory()
        return torch.device("cpu")
    device = torch.device("cuda", 0)
    try:
        torch.cuda.set_device(device)
        torch.zeros(1, device=device).add_(1)  # a kernel, which GPUs that torch is not for lack
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        raise RuntimeError(gpu_problem(str(error))) from error
    return device


def _keep_freed_memory() -> None:
    """Let this process use the memory of tensors again, up to 1 GB each and 2 GB of them all.

    glibc gives those above 32 MB back at once: with 200 images of 64 pixels a call, new pages
    cost as much as the network. Other libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and platform.libc_ver()[0] == "glibc":
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def sees_gpu() -> bool:
    """Whether this machine has a GPU; RuntimeError in words if torch cannot use it.

    Nothing is opened on it. ``torch.cuda.is_available`` is False with a driver too old.
    """
    if not torch.cuda.device_count():
        return False
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(gpu_problem(str(error))) from error
    return True


def gpu_names() -> list[str]:
    """The GPUs that this process can use; RuntimeError in words if it cannot."""
    open_device(True)
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def gpu_problem(error: str) -> str:
    """What torch says of a GPU that it cannot use, with the way out."""
    here = f"torch {torch.__version__}"
    if "driver on your system is too old" in error:
        found = re.search(r"found version (\d+)", error)
        number = int(found[1]) if found else 0
        cuda = f"CUDA {number // 1000}.{number % 1000 // 10}" if number else "an older CUDA"
        return (
            f"the NVIDIA driver, which is for {cuda}, is too old for {here} (CUDA "
            f"{torch.version.cuda}). Update the driver, or install a torch for {cuda}"
        )
    if "no NVIDIA driver" in error:
        return (
            f"{here} finds no NVIDIA driver. Install one, or start Ray there with --num-gpus 0"
        )
    if "not compiled with CUDA" in error:
        return f"{here} is built without CUDA. Install one that is built with it"
    if "no kernel image" in error:
        return f"{here} has no kernels for this kind of GPU. Install one that has"
    return error.strip().partition("\n")[0].rstrip(".")


ROOM = 6 << 30
"""Bytes that metrics take on a GPU beside the features."""

Found = TypeVar("Found")


def roomy_devices(num_bytes: int, *, use_gpu: bool) -> list[torch.device]:
    """Where to compute with so many bytes: this process's GPU if it has room, then the CPU."""
    cpu = torch.device("cpu")
    if not (use_gpu and torch.cuda.is_available()):
        return [cpu]
    device = open_device(True)
    free = torch.cuda.mem_get_info(device)[0]
    return [device, cpu] if num_bytes + ROOM <= free else [cpu]


def first_that_fits(
    work: Callable[[torch.device], Found], devices: Sequence[torch.device]
) -> Found:
    """``work`` on the first of the devices whose memory it does not exceed.

    torch.OutOfMemoryError if that is none.
    """
    for device in devices[:-1]:
        try:
            return work(device)
        except torch.OutOfMemoryError:
            print(f"note: {device} has too little memory for this: another device does it")
    return work(devices[-1])


def memory_words(error: BaseException, what: str, way_out: str) -> str:
    """What somebody is told whose GPU is too small for ``what``, of torch's words the first."""
    line = str(error).strip().partition("\n")[0]
    return f"a GPU has not enough memory for {what}: {line} {way_out}."


@contextmanager
def needs_memory(what: str, way_out: str) -> Iterator[None]:
    """ValueError with the way out if a GPU is too small for what is done inside.

    That is an error of the user: it is told once, and no worker is started again for it.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(memory_words(error, what, way_out)) from error


def make_deterministic(device: torch.device) -> None:
    """Kernels of this process give the same bits each time, on the same kind of GPU.

    Some are slower then. CPUs do so anyway: nothing changes there. To be called before the
    first product on the GPU, which is when cuBLAS reads its environment.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # its backward adds in any order
    torch.use_deterministic_algorithms(True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # would only find bugs
