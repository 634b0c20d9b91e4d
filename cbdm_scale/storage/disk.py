"""Disks that are full, over a quota or not writable: which folder it is, and the way out."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

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
