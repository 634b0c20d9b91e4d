"""Tars far away, as files of this node: fetched once, whole or not at all.

Samples are written in another order than they come, so every tar is needed again and again, and
many web servers do not serve parts of files. A copy is named after its URL and the version that
the store reports, so that an interrupted run goes on with the copies that it made.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.data.cache import cache_folder
from cbdm_scale.data.index import one_at_a_time
from cbdm_scale.storage.disk import whole_file
from cbdm_scale.storage.remote import open_url, retry


@dataclass(frozen=True)
class Copies:
    """Local files of tars that may lie anywhere; pickles, and fetches again on other nodes."""

    urls: tuple[str, ...]
    versions: tuple[str, ...]
    """What the store said of each, "" for local files."""

    @classmethod
    def of(cls, urls: Sequence[str]) -> "Copies":
        """Those of URLs or paths; asks the store of each URL for its version."""
        places = tuple(url if is_remote(url) else os.path.abspath(url) for url in urls)
        return cls(places, tuple(_version(url) if is_remote(url) else "" for url in urls))

    def path(self, i: int) -> Path:
        """The local file of a tar, fetched if it is not there."""
        url = self.urls[i]
        if not is_remote(url):
            return Path(url)
        copy = self._copy(i)
        if not copy.exists():
            with one_at_a_time(copy):
                if not copy.exists():
                    with whole_file(copy) as draft:
                        _ask(url, lambda fs, path: fs.get_file(path, str(draft)))
        return copy

    def fetch_all(self) -> None:
        """Bring all tars to this node, and say how far it is."""
        with ProgressBar(len(self.urls), "tars") as progress:
            for i in range(len(self.urls)):
                self.path(i)
                progress.add(1)

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


def _version(url: str) -> str:
    found = _ask(url, lambda fs, path: fs.info(path))
    return " ".join(str(found.get(k)) for k in ("size", "ETag", "mtime", "LastModified"))


def _ask(url: str, call: Callable[[Any, str], Any]) -> Any:
    """The result of ``call`` with the file system of a URL and the path there."""
    fs, _, path = open_url(url, "source", once=True)
    try:
        return retry(lambda: call(fs, path), lambda: f"read {url}")
    except FileNotFoundError:
        raise ValueError(f"{url} is not there, or not for you (FileNotFoundError)") from None
