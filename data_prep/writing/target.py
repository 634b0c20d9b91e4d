"""The folder that a data set is written to: a local one, or one of a store behind a URL.

Files appear whole or not at all: a local one is synced and renamed, a store shows what it has
received. Names within the folder may hold slashes.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbdm_scale.storage.disk import naming_the_disk


@dataclass(frozen=True)
class Target:
    url: str
    """A URL, or a local path, which may be relative to the folder of the command."""

    def path(self, name: str) -> str:
        """The full path or URL of a file, for messages."""
        return f"{self.url.rstrip('/')}/{name}"

    def _place(self, name: str = "") -> tuple[Any, str]:
        from cbdm_scale.storage.remote import open_url

        # What open_url answers it keeps; a relative path means another file in another folder.
        url = self.url if "://" in self.url else os.path.abspath(self.url)
        fs, _, root = open_url(url, "out")
        return fs, f"{root.rstrip('/')}/{name}".rstrip("/")

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        fs, path = self._place(name)
        try:
            return int(fs.info(path)["size"] or 0)
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """The content of a file; FileNotFoundError if it is not there."""
        fs, path = self._place(name)
        return bytes(fs.cat_file(path))

    def write(self, name: str, data: bytes) -> None:
        """A whole file, in place of one that is there."""
        with self.draft(name, str(Path(name).parent)) as path:
            path.write_bytes(data)

    def names(self, folder: str = "") -> list[str]:
        """All files below a folder, sorted; empty if there is no such folder."""
        fs, root = self._place()
        try:
            found = fs.find(self._place(folder)[1])
        except FileNotFoundError:
            return []
        return sorted(str(f).removeprefix(root).lstrip("/") for f in found)

    def remove(self, name: str) -> None:
        """A file, or a folder with all that it holds, if it is there.

        Arrow leaves empty objects on S3 that stand for the folders above.
        """
        fs, path = self._place(name)
        if fs.isdir(path):
            fs.rm(path, recursive=True)
        elif fs.exists(path):
            fs.rm_file(path)

    @contextmanager
    def draft(self, name: str, work: str) -> Iterator[Path]:
        """A local path: what was written there becomes ``name`` at the end of the context.

        Without an error, that is; else it vanishes. In a local folder it lies in ``work``, for
        a store among the temporary files of the node, one at a time per process.
        """
        from fsspec.implementations.local import LocalFileSystem

        fs, place = self._place(name)
        if not isinstance(fs, LocalFileSystem):
            with tempfile.TemporaryDirectory(prefix="data_prep-") as folder:
                path = Path(folder) / Path(name).name
                yield path
                with open(path, "rb") as file, fs.open(place, "wb") as sink:
                    shutil.copyfileobj(file, sink, 8 << 20)
            return
        target = Path(place)
        part = f".{target.name}.{os.uname().nodename}.{os.getpid()}.part"
        path = Path(self._place(work)[1]) / part
        try:
            with naming_the_disk(os.path.abspath(self.url), "--out"):
                target.parent.mkdir(parents=True, exist_ok=True)
                yield path
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                path.replace(target)
        finally:
            path.unlink(missing_ok=True)
