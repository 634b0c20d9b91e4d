"""Reading images out of shards by their byte ranges.

A sample is *proven* bad when its bytes do not have the crc32 of the index, when they do not
decode, or when its shard is missing or too short: that is a ``BadSample``. Everything else that
goes wrong while reading may pass: it is tried again, and then stops the run as an OSError.
Shapes: C channels, H = W = image size.
"""

import os
import threading
import zlib
from collections import OrderedDict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.cache import GB, BadShard, CachedShards, CacheFolder, CacheFull
from cbdm_scale.data.decoded import DecodedSplit
from cbdm_scale.data.images import decode
from cbdm_scale.data.index import Index
from cbdm_scale.data.manifest import open_folder, parse_manifest
from cbdm_scale.storage.remote import PAUSES, PermanentError, Store, retry


class BadSample(Exception):
    """A sample that is proven to be damaged or gone."""

    def __init__(self, key: str, shard: str, reason: str) -> None:
        super().__init__(key, shard, reason)
        self.key, self.shard, self.reason = key, shard, reason

    def __str__(self) -> str:
        return f"sample {self.key} of {self.shard}: {self.reason}"


class _TooShort(PermanentError):
    """The file ends before the range does: (its size,)."""


class _LocalFile:
    """Reads ranges without a file position, so that threads and forked processes share it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self.descriptor, length, offset)
        if len(data) < length and os.fstat(self.descriptor).st_size < offset + length:
            raise _TooShort(os.fstat(self.descriptor).st_size)
        return data


class _RemoteFile:
    """Reads ranges of a file in a store, one thread at a time."""

    def __init__(self, fs: Any, path: str) -> None:
        self.lock = threading.Lock()
        self.size = int(fs.size(path))
        self.stream = fs.open(path, "rb")

    def read(self, offset: int, length: int) -> bytes:
        if self.size < offset + length:
            raise _TooShort(self.size)
        with self.lock:
            self.stream.seek(offset)
            return bytes(self.stream.read(length))


class ShardReader:
    """Images of one split by row of its index. Threads may share it; pickles without files.

    With a cache, shards of a store are read from this node's disk, and so are the decoded
    images of a split that fits.
    """

    def __init__(
        self,
        root: str,
        name: str,
        index: Index,
        *,
        max_open: int = 8,
        pauses: tuple[float, ...] = PAUSES,
        cache: CacheFolder | None = None,
    ) -> None:
        self.root, self.name, self.index = root, name, index
        self.max_open, self.pauses, self.cache = max_open, pauses, cache
        self._connect()
        manifest = parse_manifest(self.store.cat_file(f"{self.folder}/dataset.json"))
        self.channels, self.image_size = manifest.channels, manifest.image_size
        self.decoded_name = f"{manifest.name}-{manifest.fingerprint}-{index.split}.pixels"

    def _connect(self) -> None:
        store, self.folder = open_folder(self.root, self.name)
        self.store = Store(store.fs, store.native, self.pauses)
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _LocalFile | _RemoteFile] = OrderedDict()
        self._pid = os.getpid()
        self._cached = CachedShards(self.cache, self.store, self.folder) if self.cache else None

    @cached_property
    def _decoded(self) -> DecodedSplit | None:
        """The decoded images, if they fit the cache beside the shards that they come from."""
        if self.cache is None:
            return None
        num_images, num_pixels = self.index.num_samples, self.channels * self.image_size**2
        size = DecodedSplit.size(num_images, num_pixels)
        if not self.store.is_local and self._cached:
            size += sum(self._cached.sizes(self.index.split))
        if size > self.cache.limit:
            return None
        return DecodedSplit.open(self.cache, self.decoded_name, num_images, num_pixels)

    def __getstate__(self) -> dict[str, Any]:
        mine = "store", "folder", "_lock", "_files", "_pid", "_cached", "_decoded"
        return {k: v for k, v in self.__dict__.items() if k not in mine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def check_cache(self, shards_at_once: int) -> None:
        """Refuse a cache that would bring the same shards again and again."""
        if self._cached is None or self.store.is_local:
            return
        sizes = self._cached.sizes(self.index.split)
        needed = sum(sorted(sizes)[-shards_at_once:])
        if needed > self._cached.cache.limit:
            raise ValueError(
                f"data.cache_gb ({self._cached.cache.limit / GB:g}) is smaller than the "
                f"{min(len(sizes), shards_at_once)} shards that are read at the same time "
                f"({needed / GB:.3g} GB). Try --data.cache-gb {1.5 * needed / GB:.2g}."
            )

    def want(self, rows: NDArray[np.int64]) -> None:
        """Bring the shards of these rows to this node's disk, without waiting for them."""
        if self._cached is not None and not self.store.is_local:
            shards = np.unique(self.index.shard_of[rows]).tolist()
            self._cached.want(self.index.shard_name(shard) for shard in shards)

    def read(self, row: int) -> bytes:
        """The bytes of one image, proven by their crc32."""
        index = self.index
        shard = index.shard_name(index.shard_of[row])
        offset, length = int(index.offsets[row]), int(index.lengths[row])
        try:
            data = self._read_range(shard, offset, length, row)
        except FileNotFoundError:
            reason = "the shard is missing"
        except BadShard as error:
            reason = str(error)
        except _TooShort as error:
            reason = f"the shard ends at byte {error}, the image at {offset + length}"
        else:
            if zlib.crc32(data) == index.crc32[row]:
                return data
            reason = "its bytes do not have the index's crc32"
        raise BadSample(index.key(row), shard, reason)

    def load(self, row: int) -> NDArray[np.uint8]:
        """One image, (C, H, W) uint8."""
        data = self.read(row)
        try:
            return decode(data, self.channels, self.image_size)
        except ValueError as error:
            shard = self.index.shard_name(self.index.shard_of[row])
            raise BadSample(self.index.key(row), shard, str(error)) from error

    def load_batch(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], list[tuple[int, BadSample]]]:
        """Images (n, C, H, W) uint8 of rows (n,), and the places where there is none."""
        count = len(rows)
        pixels = np.empty((count, self.channels, self.image_size, self.image_size), np.uint8)
        flat, bad = pixels.reshape(count, -1), []
        decoded = self._decoded
        for place in decoded.fill(rows, flat) if decoded else range(count):
            row = int(rows[place])
            try:
                pixels[place] = self.load(row)
            except BadSample as error:
                bad.append((place, error))
                continue
            if decoded:
                decoded.put(row, flat[place])
        return pixels, bad

    def _read_range(self, shard: str, offset: int, length: int, row: int) -> bytes:
        def attempt() -> bytes:
            try:
                data = self._file(shard).read(offset, length)
                if len(data) == length:
                    return data
                raise OSError(f"got {len(data)} of {length} bytes")
            except (OSError, RuntimeError):
                with self._lock:
                    self._files.pop(shard, None)
                raise

        def what() -> str:
            return f"read sample {self.index.key(row)} of {self.folder}/{shard}"

        return retry(attempt, what, self.pauses)

    def _file(self, shard: str) -> _LocalFile | _RemoteFile:
        """The open file of a shard; the one unused for longest makes room for a new one."""
        if self._pid != os.getpid():  # forked: connections cannot be shared
            self._connect()
        with self._lock:
            file = self._files.get(shard)
            if file is not None:
                self._files.move_to_end(shard)
                return file
        file = self._open(shard)
        with self._lock:
            self._files[shard] = file
            while len(self._files) > self.max_open:
                self._files.popitem(last=False)
        return file

    def _open(self, shard: str) -> _LocalFile | _RemoteFile:
        path = f"{self.folder}/{shard}"
        if self.store.is_local:
            return _LocalFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        if self._cached is None:
            return _RemoteFile(self.store.fs, path)
        try:
            return _LocalFile(self._cached.open(shard))
        except CacheFull:
            with self._lock:
                self._files.clear()  # what this reader itself keeps from making room
            return _LocalFile(self._cached.open(shard))
