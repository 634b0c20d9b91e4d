"""Local files that appear whole; disks that are full, over a quota or not writable."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REASONS = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is over its quota",
    errno.EFBIG: "takes no file as large as this",
    errno.EROFS: "is read-only",
    errno.EACCES: "is not writable",
    errno.EPERM: "is not writable",
}


class DiskError(OSError):
    """Names the folder and the way out."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def naming_the_disk(folder: str, option: str = "") -> Iterator[None]:
    """For writing to a local folder: such an error says where, and the way out.

    ``option``: what chooses another folder, as it is typed; "" where nothing does.
    """
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not str(error.filename).startswith(folder)
        if error.errno not in REASONS or isinstance(error, DiskError) or elsewhere:
            raise
        where, choose = folder, ""
        if option:
            where = f"{option.removeprefix('--')} ({folder})"
            choose = f", or choose another with {option}"
        raise DiskError(
            error.errno,
            f"{where} {REASONS[error.errno]}: {error}. Free space there and type the same "
            f"command again{choose}.",
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in this folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the place of ``path`` at the end, for good.

    Readers see the old one or the new one, never a part; after an error the old one.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield draft
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
