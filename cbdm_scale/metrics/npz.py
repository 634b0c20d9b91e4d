"""Images in an .npz, read from the disk as they are asked for.

Shapes: n = images asked for, N = images in all, (C, H, W) an image, K = classes.
"""

import hashlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_PACKED = 100
"""Times as large as packed, beyond which an array of pixels is taken for a trap."""


class NpzImages:
    """The layout of ADM: ``arr_0`` (N, H, W, C) uint8 and, if it is there, ``arr_1`` labels.

    ``class_names`` (K,), if they are there, are text: the names of the labels.
    """

    def __init__(self, path: str):
        self.path = str(Path(path).expanduser())
        try:
            with zipfile.ZipFile(self.path) as archive:
                self.names = archive.namelist()
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise ValueError(f"{path} is not an .npz file: {error}") from error
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            raise ValueError(
                f"{path}: arr_0 must be (N, H, W, C) uint8, got {self.pixels.shape} "
                f"{self.pixels.dtype}"
            )
        if not self.count:
            raise ValueError(f"{path} holds no images: arr_0 is {self.pixels.shape}")

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k != "pixels"}

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """Mapped into memory where it is stored as it is, else unpacked."""
        if "arr_0.npy" not in self.names:
            raise ValueError(f"{self.path} has no arr_0: it is not in the layout of ADM")
        with self._readable("arr_0"):
            return _mapped(self.path, "arr_0.npy")

    @contextmanager
    def _readable(self, array: str) -> Iterator[None]:
        """A damaged zip or array fails in many ways; said as one."""
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"{self.path}: {array} cannot be read: {str(error)[:200]}"
            ) from error

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """(K,), () without."""
        if "class_names.npy" not in self.names:
            return ()
        with self._readable("class_names"):
            names = _mapped(self.path, "class_names.npy")
            if names.ndim != 1 or names.dtype.kind != "U":
                raise ValueError(f"{names.dtype} {names.shape} are no names")
            return tuple(names.tolist())

    @property
    def count(self) -> int:
        """Images of the array."""
        return len(self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the file."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) of ``arr_1``; -1 without. ValueError if their number is another."""
        if "arr_1.npy" not in self.names:
            return np.full(self.count, -1, np.int64)
        with self._readable("arr_1"), np.load(self.path, allow_pickle=False) as file:
            labels = np.asarray(file["arr_1"], np.int64).reshape(-1)
        if len(labels) != self.count:
            raise ValueError(
                f"{self.path}: arr_1 has {len(labels):,} labels for {self.count:,} images"
            )
        return labels

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """(n, C, H, W)"""
        return np.ascontiguousarray(self.pixels[list(numbers)].transpose(0, 3, 1, 2))


def _mapped(path: str, member: str) -> NDArray[Any]:
    """An array of an .npz, without reading it where the zip stores it uncompressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type == zipfile.ZIP_STORED:
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read(stream)
                header = stream.tell()
            if not fortran and dtype == np.uint8:
                with open(path, "rb") as file:  # the local header has lengths of its own
                    file.seek(info.header_offset + 26)
                    name, extra = np.frombuffer(file.read(4), "<u2").tolist()
                start = info.header_offset + 30 + name + extra + header
                if math.prod(shape) + header != info.file_size or min(shape, default=0) < 0:
                    raise ValueError(f"it says the shape {shape} of {info.file_size:,} bytes")
                if not math.prod(shape):  # nothing to map
                    return np.empty(shape, np.uint8)
                return np.memmap(path, np.uint8, "r", start, shape)
        if info.file_size > max(MOST_PACKED * info.compress_size, 1 << 28):
            raise ValueError(
                f"{info.compress_size:,} bytes unpack to {info.file_size:,}: no images do that"
            )
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[member.removesuffix(".npy")])
