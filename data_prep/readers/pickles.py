"""Reads the published CIFAR pickles, written by Python 2, without running anything in them.

A pickle is a program that may call any function it can name. This reader knows three names, all
of numpy, and gives stand-ins of its own for them; every other name is refused.
"""

import io
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Dtype:
    """Stands for numpy.dtype: bytes are the only type wanted."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"holds an array of {code!r}, not of bytes")

    def __setstate__(self, state: object) -> None:
        """Byte order and flags mean nothing for bytes."""


class _Array:
    """Stands for numpy.ndarray; ``value`` is filled by the pickle's state."""

    value: NDArray[np.uint8]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or fortran:
            raise pickle.UnpicklingError("holds an array that is not plain bytes")
        raw = data.encode("latin1") if isinstance(data, str) else data
        self.value = np.frombuffer(raw, np.uint8).reshape(shape)


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode: how Python 3 writes bytes in the old protocol."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"wants the encoding {encoding!r}")
    return text.encode("latin1")


KNOWN_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return KNOWN_NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is refused") from None


def _check_memo(data: bytes) -> None:
    """Refuse a place in the pickle's memory beyond what it fills: Python allocates up to it."""
    for steps, (operation, place, _) in enumerate(pickletools.genops(data)):
        if operation.name.endswith("PUT") and isinstance(place, int) and place > steps:
            raise pickle.UnpicklingError(f"fills place {place:,} after {steps:,} steps")


def load_batch(data: bytes) -> dict[str, Any]:
    """A pickled dictionary with its keys as text and its arrays as uint8 arrays."""
    try:
        _check_memo(data)
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(batch, dict):
            raise pickle.UnpicklingError(f"holds a {type(batch).__name__}, not a dictionary")
        return {
            k.decode() if isinstance(k, bytes) else str(k): (
                v.value if isinstance(v, _Array) else v
            )
            for k, v in batch.items()
        }
    except Exception as error:  # a damaged pickle fails in many ways
        raise ValueError(f"{type(error).__name__}: {error}") from error
