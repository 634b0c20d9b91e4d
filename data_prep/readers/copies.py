"""Tars far away, as files of this node: fetched once, whole or not at all.

Samples are written in another order than they come, so every tar is needed again and again, and
many web servers do not serve parts of files. A copy is named after its URL and the version that
the store reports, so that an interrupted run goes on with the copies that it made.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbdm_scale.data.cache import cache_folder
from cbdm_scale.data.index import one_at_a_time

ARROW_SCHEMES = ("s3", "gs", "gcs")
PAUSES = (0.5, 2.0, 8.0)
"""Seconds before another attempt."""
SAY_EVERY = 10.0
"""Seconds between lines of progress."""


@dataclass(frozen=True)
class Copies:
    """Local files of tars that may lie anywhere; pickles, and fetches again on other nodes."""

    urls: tuple[str, ...]
    versions: tuple[str, ...]
    """What the store said of each, "" for local files."""

    @classmethod
    def of(cls, urls: Sequence[str]) -> "Copies":
        """Those of URLs or paths; asks the store of each URL for its version."""
        return cls(tuple(urls), tuple(_version(url) if is_remote(url) else "" for url in urls))

    def path(self, i: int) -> Path:
        """The local file of a tar, fetched if it is not there."""
        url = self.urls[i]
        if not is_remote(url):
            return Path(url)
        copy = self._copy(i)
        if not copy.exists():
            with one_at_a_time(copy):
                if not copy.exists():
                    _fetch(url, copy)
        return copy

    def fetch_all(self) -> None:
        """Bring all tars to this node, and say how far it is."""
        said = time.monotonic()
        for i in range(len(self.urls)):
            self.path(i)
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                print(f"fetched {i + 1:,} of {len(self.urls):,} tars", flush=True)

    def remove(self) -> None:
        """Delete this node's copies; what was local from the start stays."""
        for i, url in enumerate(self.urls):
            if is_remote(url):
                self._copy(i).unlink(missing_ok=True)
                self._copy(i).with_suffix(".lock").unlink(missing_ok=True)

    def _copy(self, i: int) -> Path:
        digest = hashlib.sha256(f"{self.urls[i]}\n{self.versions[i]}".encode()).hexdigest()
        return cache_folder() / f"source-{digest[:32]}.tar"


def is_remote(url: str) -> bool:
    """Whether a word is a URL."""
    return "://" in url


def open_url(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path on it; s3:// and gs:// by pyarrow, as for runs."""
    try:
        if url.partition("://")[0] in ARROW_SCHEMES:
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow import fs as arrow

            native, path = arrow.FileSystem.from_uri(url)
            return ArrowFSWrapper(native), str(path)
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url, use_listings_cache=False)
        return fs, str(path)
    except (ValueError, ImportError, OSError) as error:
        raise ValueError(f"{url} cannot be opened: {error}") from error


def _version(url: str) -> str:
    fs, path = open_url(url)
    found = _patiently(lambda: fs.info(path), url)
    return " ".join(str(found.get(k)) for k in ("size", "ETag", "mtime", "LastModified"))


def _fetch(url: str, copy: Path) -> None:
    fs, path = open_url(url)
    handle, partial = tempfile.mkstemp(dir=copy.parent, suffix=".partial")
    os.close(handle)
    try:
        _patiently(lambda: fs.get_file(path, partial), url)
        os.replace(partial, copy)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _patiently(call: Any, url: str) -> Any:
    """The result of a call to a store, tried again while it fails for no lasting reason."""
    for pause in (*PAUSES, None):
        try:
            return call()
        except (FileNotFoundError, PermissionError) as error:
            raise ValueError(
                f"{url} is not there, or not for you ({type(error).__name__})"
            ) from None
        except Exception as error:  # stores have error classes of their own
            if pause is None:
                raise OSError(
                    f"{url} cannot be read after {len(PAUSES) + 1} attempts: "
                    f"{type(error).__name__}: {error}"
                ) from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
