"""Whole files of a data set on this node's disk, shared by all processes of the node.

One process downloads a shard, the others wait for it. Its size and sha256 are checked once, on
arrival; only then does it get its name, so that a kill at any moment leaves nothing that is
taken for a shard. Who reads a file holds a shared lock on it, who writes it an exclusive one;
the kernel drops both when a process ends. Files that nobody holds make room for new ones, the
one unused for longest first, so that the folder stays below its limit.
"""

import errno
import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cbdm_scale.data.index_files import in_split, parse_shards
from cbdm_scale.data.options import DataConfig
from cbdm_scale.storage.disk import sync_folder
from cbdm_scale.storage.remote import PermanentError, Store, WrongSize

GB = 1_000_000_000
PARTIAL = ".partial"
ASK_AGAIN_S = 60.0


class BadShard(PermanentError):
    """A shard that is proven to be gone or damaged in the store itself; says why."""


class CacheFull(ValueError):
    """What is open leaves no room for more."""


@dataclass(frozen=True)
class CacheFolder:
    """A folder with a limit; the names in it hold no slash."""

    path: Path
    limit: int
    """Bytes that all files in it may take."""

    def make(self) -> None:
        """Make the folder, readable by this user alone; ValueError if that cannot be."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"data.cache ({self.path}) cannot be used: {error}. Choose a folder on this "
                "node's disk with --data.cache."
            ) from error

    def hold(self, name: str, how: int = os.O_RDONLY) -> int | None:
        """An open descriptor of a file, which keeps it here while it is open; or None."""
        try:
            descriptor = os.open(self.path / name, how | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)  # used just now
        return descriptor

    def create(self, name: str, size: int) -> int | None:
        """A descriptor of ``name.partial``, held alone, with room made for its size.

        None if the file appeared meanwhile, or if somebody else made or gave up its partial
        while this process waited: then ask again.
        """
        self.make()
        partial = self.path / (name + PARTIAL)
        with self._alone():
            if (self.path / name).exists():
                return None
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # somebody is at it
            else:
                try:
                    os.ftruncate(descriptor, 0)
                    self._make_room(size)
                    os.ftruncate(descriptor, size)  # reserves it: others count it
                except BaseException:
                    partial.unlink(missing_ok=True)
                    os.close(descriptor)
                    raise
                return descriptor
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.close(descriptor)
        return None

    def publish(self, name: str, descriptor: int) -> None:
        """Give a whole file its name; the descriptor then holds it as a reader does."""
        os.fsync(descriptor)
        with self._alone():  # so that nobody takes it for an abandoned partial file
            os.replace(self.path / (name + PARTIAL), self.path / name)
        sync_folder(self.path)
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def discard(self, name: str, descriptor: int) -> None:
        """Give up a partial file; whoever waits for it asks again."""
        with self._alone():
            (self.path / (name + PARTIAL)).unlink(missing_ok=True)
        os.close(descriptor)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self.path / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_room(self, size: int) -> None:
        """Delete what nobody holds until ``size`` more bytes stay below the limit."""
        if size > self.limit:
            raise ValueError(
                f"data.cache_gb ({self.limit / GB:g}) is smaller than a single file of "
                f"{size / GB:.3g} GB. Try --data.cache-gb {10 * size / GB:.2g}."
            )
        found = []
        for entry in os.scandir(self.path):
            if entry.name != "lock":
                about = entry.stat()
                is_whole = not entry.name.endswith(PARTIAL)
                found.append((is_whole, about.st_mtime_ns, about.st_size, entry.path))
        total = sum(entry[2] for entry in found)
        for is_whole, _, bytes_, path in sorted(found):  # what kills left behind goes first
            if is_whole and total + size <= self.limit:
                break
            if _remove_unless_held(path):
                total -= bytes_
        if total + size > self.limit:
            raise CacheFull(
                f"data.cache_gb ({self.limit / GB:g}) is smaller than the shards that are "
                f"open on this node at once. Try --data.cache-gb {4 * self.limit / GB:.2g}, or "
                "smaller shards."
            )


def open_cache(options: DataConfig) -> CacheFolder | None:
    """The node's cache of shards and decoded images; None where it keeps nothing."""
    if not options.cache_gb:
        return None
    path = Path(options.cache).expanduser() if options.cache else cache_folder() / "shards"
    cache = CacheFolder(path, int(options.cache_gb * GB))
    cache.make()
    return cache


def _remove_unless_held(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Shard:
    file: str
    """Name within the data set's folder, such as "train/000000.tar"."""
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name in the cache: the content, whatever data set it belongs to."""
        return f"{self.sha256}.tar"


class CachedShards:
    """The shards of one data set, from this node's disk or brought there first."""

    def __init__(self, cache: CacheFolder, store: Store, folder: str) -> None:
        self.cache, self.store, self.folder = cache, store, folder
        self._bad: dict[str, str] = {}
        self._asked: dict[str, float] = {}  # when each shard was last wanted
        self._queue: SimpleQueue[str] | None = None

    def want(self, files: Iterable[str]) -> None:
        """Bring shards here in the background; what goes wrong shows when they are read."""
        now = time.monotonic()
        new = [f for f in files if now - self._asked.get(f, -ASK_AGAIN_S) >= ASK_AGAIN_S]
        self._asked.update(dict.fromkeys(new, now))
        if self._queue is None:
            self._queue = SimpleQueue()
            threading.Thread(target=self._bring, daemon=True, name="shards ahead").start()
        for file in new:
            self._queue.put(file)

    def _bring(self) -> None:
        assert self._queue is not None
        while True:
            with suppress(OSError, ValueError, BadShard):
                os.close(self.open(self._queue.get()))

    def open(self, file: str) -> int:
        """A descriptor of a shard that is whole and right, downloaded if nobody has yet."""
        shard = self._find(file)
        while True:
            if file in self._bad:
                raise BadShard(self._bad[file])
            descriptor = self.cache.hold(shard.name)
            if descriptor is not None:
                return descriptor
            descriptor = self.cache.create(shard.name, shard.size)
            if descriptor is None:
                continue
            try:
                if file in self._bad:  # found out by another thread, on which this one waited
                    raise BadShard(self._bad[file])
                _download(descriptor, self.cache, self.store, f"{self.folder}/{file}", shard)
                self.cache.publish(shard.name, descriptor)
            except BaseException as error:
                if isinstance(error, BadShard):
                    self._bad[file] = str(error)  # before anybody else may try
                self.cache.discard(shard.name, descriptor)
                raise
            return descriptor

    def sizes(self, split: str) -> list[int]:
        """Bytes of every shard of a split."""
        return list(in_split(self._table, split)["bytes"].to_pylist())

    def _find(self, file: str) -> Shard:
        import pyarrow.compute as pc

        table = self._table
        row = pc.index(table["file"], file).as_py()
        assert row >= 0, f"{file} is not in shards.parquet"
        return Shard(file, table["bytes"][row].as_py(), table["sha256"][row].as_py())

    @cached_property
    def _table(self) -> Any:
        raw = self.store.cat_file(f"{self.folder}/shards.parquet")
        return parse_shards(raw, with_sha256=True)


def _download(
    descriptor: int, cache: CacheFolder, store: Store, path: str, shard: Shard
) -> None:
    """Fill a file; wrong bytes are fetched afresh once, and then are the store's own."""
    for is_last in (False, True):
        digest = hashlib.sha256()
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            for part in store.parts(path, shard.size):
                digest.update(part)
                _write(descriptor, part, cache)
        except FileNotFoundError:
            raise BadShard("the shard is missing") from None
        except WrongSize as error:
            if is_last:
                raise BadShard(f"the shard is not whole: {error}") from None
        else:
            if digest.hexdigest() == shard.sha256:
                return
            if is_last:
                raise BadShard("the shard does not have the sha256 of shards.parquet")


def _write(descriptor: int, data: bytes, cache: CacheFolder) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"data.cache ({cache.path}) has no room for data.cache_gb ({cache.limit / GB:g}): "
            f"{error}. Choose another disk with --data.cache, or less with --data.cache-gb."
        ) from error


def cache_folder() -> Path:
    """CBDM_SCALE_CACHE, or a folder of this user among the node's temporary files."""
    chosen = os.environ.get("CBDM_SCALE_CACHE")
    folder = Path(chosen or Path(tempfile.gettempdir()) / f"cbdm_scale-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise ValueError(f"CBDM_SCALE_CACHE ({folder}) cannot be used: {error}") from error
    if not chosen and owner != os.getuid():
        raise ValueError(
            f"the cache folder {folder} belongs to somebody else. Set CBDM_SCALE_CACHE."
        )
    return folder
