"""The folder of a run: a local path (NFS counts as one) or a URL.

URLs are opened by ``cbdm_scale.storage.remote``, and Ray is handed the very same object, so
that there is one configuration of credentials and endpoints.
"""

import errno
import json
import os
import shutil
import uuid
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any

from cbdm_scale.storage.disk import naming_the_disk, sync_folder, whole_file
from cbdm_scale.storage.json import parse_json, structure
from cbdm_scale.storage.remote import open_url, refuse_password, split_scheme


def _missing_folders(here: Path) -> list[Path]:
    """This folder and its parents as far as they do not exist, innermost first."""
    return [folder for folder in (here, *here.parents) if not folder.exists()]


@dataclass(frozen=True)
class Storage:
    """A folder, local or remote; names within it may hold slashes ("checkpoints/1000")."""

    url: str
    """An absolute local path, or a URL such as s3://bucket/folder; no slash at its end."""
    option: str = field(default="cluster.storage", compare=False)
    """What named it, for errors; "" is no option."""

    def __post_init__(self) -> None:
        option = self.option or "cluster.storage"
        refuse_password(option, self.url)
        scheme, rest = split_scheme(self.url)
        if scheme in ("", "file", "local"):
            if not rest:
                raise ValueError(f"{option} is empty. Try --{option} ~/cbdm_runs.")
            url = os.path.abspath(os.path.expanduser(rest))
        else:
            if "?" in rest:
                raise ValueError(
                    f"{option} ({self.url}) carries options after '?'. Leave them out and "
                    "set AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the like instead."
                )
            url = f"{scheme}://{rest.rstrip('/')}"
        object.__setattr__(self, "url", url)

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return not split_scheme(self.url)[0]

    def path(self, name: str = "") -> str:
        """The full path or URL of a name."""
        joint = "" if self.url.endswith("/") else "/"
        return f"{self.url}{joint}{name}" if name else self.url

    def local_path(self, name: str = "") -> Path:
        """The path of a name in a local folder."""
        assert self.is_local, f"{self.url} is not a local path"
        return Path(self.path(name))

    def child(self, name: str) -> "Storage":
        """A folder in this one."""
        return replace(self, url=self.path(name))

    def naming_the_disk(self) -> AbstractContextManager[None]:
        """For writing here: a full disk becomes an error that names folder and way out."""
        return naming_the_disk(self.url, f"--{self.option}" if self.option else "")

    def _remote(self, name: str = "") -> tuple[Any, str]:
        fs, _, root = open_url(self.url, self.option or "cluster.storage")
        return fs, f"{root.rstrip('/')}/{name}" if name else root

    def pyarrow_filesystem(self) -> tuple[Any, str]:
        """(pyarrow filesystem, path), as Ray's ``RunConfig(storage_filesystem=)`` takes it."""
        if self.is_local:
            from pyarrow import fs as arrow

            return arrow.LocalFileSystem(), self.url
        return open_url(self.url, "cluster.storage")[1:]

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder is there. Stores without folders know only filled ones."""
        if self.is_local:
            return self.local_path(name).exists()
        fs, path = self._remote(name)
        return bool(fs.exists(path))

    def read_bytes(self, name: str) -> bytes:
        """A whole file; FileNotFoundError if it is not there."""
        if self.is_local:
            return self.local_path(name).read_bytes()
        fs, path = self._remote(name)
        return bytes(fs.cat_file(path))

    def read_path(self, path: str) -> bytes:
        """A file below this folder, by its full path or URL."""
        return self.read_bytes(path.removeprefix(f"{self.url.rstrip('/')}/"))

    def read_text(self, name: str) -> str:
        """A whole file, as UTF-8."""
        return self.read_bytes(name).decode()

    def read_json(self, name: str, kind: Any = dict[str, Any]) -> Any:
        """A file of JSON as a value of a type (``structure``).

        ValueError, with the file's name, if it is no JSON, or not of this type.
        """
        found = parse_json(self.read_bytes(name), self.path(name))
        try:
            return structure(kind, found, "")
        except ValueError as error:
            raise ValueError(f"{self.path(name)} is damaged: {error}.") from None

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file so that readers see the old one or the new one, never a part."""
        with self.naming_the_disk():
            if not self.is_local:
                fs, path = self._remote(name)
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                fs.pipe_file(path, data)
                return
            target = self.local_path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target) as draft:
                draft.write_bytes(data)

    def write_json(self, name: str, value: Any) -> None:
        """Write plain data, as whole as ``write_bytes``."""
        self.write_bytes(name, (json.dumps(value, indent=2) + "\n").encode())

    def write_all(self, file: FileIO, data: bytes) -> None:
        """Write at once to a file of ``open_append``; a disk that takes only a part is full."""
        with self.naming_the_disk():
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_append(self, name: str) -> FileIO:
        """A local file opened for unbuffered appending; a new name is made durable at once."""
        target = self.local_path(name)
        with self.naming_the_disk():
            target.parent.mkdir(parents=True, exist_ok=True)
            is_new = not target.exists()
            file = open(target, "ab", buffering=0)  # noqa: SIM115 (the caller closes it)
            if is_new:
                sync_folder(target.parent)
            return file

    def size(self, name: str) -> int:
        """Bytes of a file."""
        if self.is_local:
            return self.local_path(name).stat().st_size
        fs, path = self._remote(name)
        return int(fs.size(path))

    def tree_size(self) -> int:
        """Bytes of all files here and below; 0 if the folder is missing."""
        if self.is_local:
            files = (path for path in self.local_path().rglob("*") if not path.is_symlink())
            return sum(path.stat().st_size for path in files if path.is_file())
        fs, path = self._remote()
        return int(fs.du(path)) if fs.exists(path) else 0

    def files(self) -> list[str]:
        """Sorted names of all files here and below; none if the folder is missing."""
        if self.is_local:
            root = self.local_path()
            found = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
            return sorted(map(str, found))
        fs, path = self._remote()
        try:
            return sorted(str(name).removeprefix(path).lstrip("/") for name in fs.find(path))
        except FileNotFoundError:
            return []

    def list(self) -> list[str]:
        """Sorted names of the files and folders right here; none if the folder is missing."""
        if self.is_local:
            folder = self.local_path()
            names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        else:
            fs, path = self._remote()
            names = []
            if fs.exists(path):
                found = (str(entry).rstrip("/") for entry in fs.ls(path, detail=False))
                names = [entry.rpartition("/")[2] for entry in found if entry != path]
        return sorted(n for n in names if not (n.startswith(".") and n.endswith(".tmp")))

    def put_file(self, name: str, source: Path) -> None:
        """Upload a local file piece by piece; on a store it appears whole at the end."""
        assert not self.is_local, "local files are moved"
        with self.naming_the_disk():
            fs, path = self._remote(name)
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(source), path)

    def remove(self, name: str) -> None:
        """Delete a file or a whole folder; one that is missing is fine."""
        if not self.is_local:
            fs, path = self._remote(name)
            if fs.exists(path):
                fs.rm(path, recursive=True)
            return
        target = self.local_path(name)
        try:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink()
        except FileNotFoundError:
            pass

    def remove_if_empty(self) -> None:
        """Delete this folder if nothing is in it; stores have no such folders."""
        if self.is_local:
            with suppress(OSError):
                self.local_path("").rmdir()

    def move(self, source: str, target: str) -> None:
        """Rename a local folder or file in one step: it appears under its new name whole."""
        old, new = self.local_path(source), self.local_path(target)
        with self.naming_the_disk():
            new.parent.mkdir(parents=True, exist_ok=True)
            os.rename(old, new)
            sync_folder(new.parent)

    def make_folder(self) -> None:
        """Create this folder with its parents; stores without folders need none."""
        with self.naming_the_disk():
            if self.is_local:
                self.local_path().mkdir(parents=True, exist_ok=True)
            else:
                fs, path = self._remote()
                fs.makedirs(path, exist_ok=True)

    def check_writable(self) -> None:
        """Write, read and delete a small file; leaves nothing behind, not even a folder."""
        probe = f"writable-{uuid.uuid4().hex[:8]}"
        missing = _missing_folders(self.local_path()) if self.is_local else []
        try:
            try:
                self.write_bytes(probe, b"cbdm")
                if self.read_bytes(probe) != b"cbdm":
                    raise OSError("it does not give back what was written")
            finally:
                self.remove(probe)
        except Exception as error:  # each store raises its own kinds
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise ValueError(
                f"{self.option} ({self.url}) is not writable: {cause}. Choose another with "
                f"--{self.option}."
            ) from error
        finally:
            for folder in missing:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
