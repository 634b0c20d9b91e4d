"""Reading images out of shards: one by its byte range, or all by walking the tars.

A sample is *proven* bad when its bytes do not have the crc32 of the index, when they do not
decode, or when its shard is missing or too short: that is a ``BadSample``. Everything else that
goes wrong while reading may pass: it is tried again, and then stops the run as an OSError.
Shapes: C channels, H = W = image size.
"""

import io
import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.index import Index
from cbdm_scale.data.manifest import open_folder, parse_manifest, read_shards

PAUSES = 0.1, 0.5, 2.0
"""Seconds before each new attempt of a read that failed."""
IMAGE_SUFFIXES = "png", "jpg", "jpeg", "webp"


class BadSample(Exception):
    """A sample that is proven to be damaged or gone."""

    def __init__(self, key: str, shard: str, reason: str) -> None:
        super().__init__(key, shard, reason)
        self.key, self.shard, self.reason = key, shard, reason

    def __str__(self) -> str:
        return f"sample {self.key} of {self.shard}: {self.reason}"


class _TooShort(Exception):
    """The file ends before the range does: (its size,)."""


class _LocalFile:
    """Reads ranges without a file position, so that threads and forked processes share it."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self.descriptor, length, offset)
        if len(data) < length and os.fstat(self.descriptor).st_size < offset + length:
            raise _TooShort(os.fstat(self.descriptor).st_size)
        return data


class _RemoteFile:
    """Reads ranges of a file on any fsspec file system, one thread at a time."""

    def __init__(self, fs: Any, path: str) -> None:
        self.lock = threading.Lock()
        try:
            self.size = int(fs.size(path))
            self.stream = fs.open(path, "rb")
        except OSError:
            raise
        except Exception as error:  # stores have error classes of their own
            raise OSError(f"{type(error).__name__}: {error}") from error

    def read(self, offset: int, length: int) -> bytes:
        if self.size < offset + length:
            raise _TooShort(self.size)
        try:
            with self.lock:
                self.stream.seek(offset)
                return bytes(self.stream.read(length))
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


class ShardReader:
    """Images of one split by row of its index. Threads may share it; pickles without files."""

    def __init__(
        self,
        root: str,
        name: str,
        index: Index,
        *,
        max_open: int = 8,
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self.root, self.name, self.index = root, name, index
        self.max_open, self.pauses = max_open, pauses
        self._connect()
        manifest = parse_manifest(self.fs.cat_file(f"{self.folder}/dataset.json"))
        self.channels, self.image_size = manifest.channels, manifest.image_size

    def _connect(self) -> None:
        self.fs, self.folder = open_folder(self.root, self.name)
        self._is_local = "file" in np.atleast_1d(self.fs.protocol)
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _LocalFile | _RemoteFile] = OrderedDict()
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        mine = "fs", "folder", "_is_local", "_lock", "_files", "_pid"
        return {k: v for k, v in self.__dict__.items() if k not in mine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def read(self, row: int) -> bytes:
        """The bytes of one image, proven by their crc32."""
        index = self.index
        shard = index.shard_name(index.shard_of[row])
        offset, length = int(index.offsets[row]), int(index.lengths[row])
        try:
            data = self._read_range(shard, offset, length, row)
        except FileNotFoundError:
            raise BadSample(index.key(row), shard, "the shard is missing") from None
        except _TooShort as error:
            reason = f"the shard ends at byte {error}, the image at {offset + length}"
            raise BadSample(index.key(row), shard, reason) from None
        if zlib.crc32(data) != index.crc32[row]:
            raise BadSample(index.key(row), shard, "its bytes do not have the index's crc32")
        return data

    def load(self, row: int) -> NDArray[np.uint8]:
        """One image, (C, H, W) uint8."""
        data = self.read(row)
        try:
            return decode(data, self.channels, self.image_size)
        except ValueError as error:
            shard = self.index.shard_name(self.index.shard_of[row])
            raise BadSample(self.index.key(row), shard, str(error)) from error

    def _read_range(self, shard: str, offset: int, length: int, row: int) -> bytes:
        for pause in (*self.pauses, None):
            try:
                data = self._file(shard).read(offset, length)
                if len(data) == length:
                    return data
                raise OSError(f"got {len(data)} of {length} bytes")
            except FileNotFoundError:
                raise
            except OSError as error:
                with self._lock:
                    self._files.pop(shard, None)
                if pause is None:
                    raise OSError(
                        f"cannot read sample {self.index.key(row)} of {self.folder}/{shard} "
                        f"after {len(self.pauses) + 1} attempts: {error}"
                    ) from error
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _file(self, shard: str) -> _LocalFile | _RemoteFile:
        """The open file of a shard; the one unused for longest makes room for a new one."""
        if self._pid != os.getpid():  # forked: connections cannot be shared
            self._connect()
        with self._lock:
            file = self._files.get(shard)
            if file is not None:
                self._files.move_to_end(shard)
                return file
        path = f"{self.folder}/{shard}"
        file = _LocalFile(path) if self._is_local else _RemoteFile(self.fs, path)
        with self._lock:
            self._files[shard] = file
            while len(self._files) > self.max_open:
                self._files.popitem(last=False)
        return file


def decode(data: bytes, channels: int, image_size: int) -> NDArray[np.uint8]:
    """An encoded image as (C, H, W) uint8; a ValueError says why it is none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.size != (image_size, image_size):
                raise ValueError(f"is {image.size} pixels, not {image_size} x {image_size}")
            mode = "L" if channels == 1 else "RGB"
            pixels = np.array(image if image.mode == mode else image.convert(mode), np.uint8)
    except Exception as error:  # PIL raises OSError, SyntaxError, struct.error and more
        raise ValueError(f"does not decode: {error}") from error
    if channels == 1:
        return pixels[None]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def iterate(root: str, name: str, split: str) -> Iterator[tuple[str, bytes, int]]:
    """Walk a split's tars as plain WebDataset: (key, bytes of the image, label), in tar order.

    A damaged header looks to a tar reader like the end of the file, so samples are counted.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    fs, folder = open_folder(root, name)
    _, shards = read_shards(fs, folder)
    for shard in shards:
        if not shard["file"].startswith(split + "/"):
            continue
        path, count = f"{folder}/{shard['file']}", 0
        with fs.open(path, "rb") as stream:
            files = tar_file_expander([{"url": path, "stream": stream}])
            for sample in group_by_keys(files):
                image = next((sample[s] for s in IMAGE_SUFFIXES if s in sample), None)
                if image is None or "cls" not in sample:
                    raise ValueError(f"{path}: sample {sample['__key__']} is not whole")
                count += 1
                yield sample["__key__"], image, int(sample["cls"])
        if count != shard["samples"]:
            raise ValueError(f"{path} ends after {count} of {shard['samples']} samples")
