"""The folder that a data set is written to: a local one, or one of a store behind a URL.

Files appear in either whole or not at all; names within it may hold slashes. Both kinds pickle.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Target(Protocol):
    def path(self, name: str) -> str:
        """The full path or URL of a file, for messages."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""

    def read(self, name: str) -> bytes:
        """The content of a file; FileNotFoundError if it is not there."""

    def write(self, name: str, data: bytes) -> None:
        """A whole file, in place of one that is there."""

    def names(self, folder: str = "") -> list[str]:
        """All files below a folder, sorted; empty if there is no such folder."""

    def remove(self, name: str) -> None:
        """A file, or a folder with all that it holds, if it is there."""

    def draft(self, name: str, work: str) -> Any:
        """A context with a local path: what was written there becomes ``name`` at its end.

        Without an error, that is; else it vanishes. A local target makes it in ``work``.
        """


@dataclass(frozen=True)
class LocalTarget:
    folder: Path

    def path(self, name: str) -> str:
        """The full path of a file."""
        return str(self.folder / name)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        try:
            return (self.folder / name).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """A file, renamed to its place when it is whole."""
        with self.draft(name, str(Path(name).parent)) as path:
            path.write_bytes(data)

    def names(self, folder: str = "") -> list[str]:
        """All files below a folder, sorted."""
        found = (self.folder / folder).rglob("*")
        return sorted(f.relative_to(self.folder).as_posix() for f in found if f.is_file())

    def remove(self, name: str) -> None:
        """A file or a folder, if it is there."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @contextmanager
    def draft(self, name: str, work: str) -> Iterator[Path]:
        """A path in ``work``; what was written there is synced and renamed at the end."""
        target = self.folder / name
        path = self.folder / work / f".{target.name}.{os.uname().nodename}.{os.getpid()}.part"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield path
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            path.replace(target)
        finally:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteTarget:
    """Drafts lie among the temporary files of the node, one at a time per process."""

    url: str

    def path(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.url.rstrip('/')}/{name}"

    def _place(self, name: str = "") -> tuple[Any, str]:
        from cbdm_scale.storage.remote import open_url

        fs, _, root = open_url(self.url, "out")
        return fs, f"{root.rstrip('/')}/{name}".rstrip("/")

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        fs, path = self._place(name)
        try:
            return int(fs.info(path)["size"] or 0)
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """The content of a file."""
        fs, path = self._place(name)
        return bytes(fs.cat_file(path))

    def write(self, name: str, data: bytes) -> None:
        """A file, which stores show when it is whole."""
        fs, path = self._place(name)
        fs.pipe_file(path, data)

    def names(self, folder: str = "") -> list[str]:
        """All files below a folder, sorted."""
        fs, root = self._place()
        try:
            found = fs.find(self._place(folder)[1])
        except FileNotFoundError:
            return []
        return sorted(str(f).removeprefix(root).lstrip("/") for f in found)

    def remove(self, name: str) -> None:
        """Arrow leaves empty objects on S3 that stand for the folders above."""
        fs, path = self._place(name)
        if fs.isdir(path):
            fs.rm(path, recursive=True)
        elif fs.exists(path):
            fs.rm_file(path)

    @contextmanager
    def draft(self, name: str, work: str) -> Iterator[Path]:
        """A path among the temporary files; what was written there is sent at the end."""
        fs, target = self._place(name)
        with tempfile.TemporaryDirectory(prefix="data_prep-") as folder:
            path = Path(folder) / Path(name).name
            yield path
            with open(path, "rb") as file, fs.open(target, "wb") as sink:
                shutil.copyfileobj(file, sink, 8 << 20)
