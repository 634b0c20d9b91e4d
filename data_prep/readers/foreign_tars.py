"""The members of a tar and where they lie, or the reason why it is not whole.

Tar readers take a damaged header for the end of the file and lose what follows without a word
(Python's too); here the end is an error unless it is the zeros that close a tar.
"""

import os
import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

BLOCK = 512
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"BZ": "bzip2", b"\xfd7": "xz"}
CHUNK = 1 << 20


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    offset: int
    """First byte of its content."""
    size: int


def list_members(path: str | Path, name: str) -> list[Member]:
    """All regular files in the order of the tar; ``name`` is what errors call it."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        magic = file.read(2)
        if magic in COMPRESSED:
            raise ValueError(
                f"{name} is compressed ({COMPRESSED[magic]}): its images cannot be read by "
                "their place. Unpack it to a plain .tar."
            )
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = [_member(info) for info in tar if info.isreg()]
                end = tar.offset
        except Exception as error:  # tarfile has many ways to fail on damaged bytes
            raise ValueError(f"{name} is damaged or cut short: {error}") from error
        _check_end(file, end, size, name)
    return members


def _member(info: tarfile.TarInfo) -> Member:
    if info.issparse():
        raise ValueError(f"{info.name!r} is sparse")
    return Member(info.name, info.offset_data, info.size)


def _check_end(file: BinaryIO, end: int, size: int, name: str) -> None:
    """From ``end`` on there are zeros, a block of them at least."""
    if size < end + BLOCK:
        raise ValueError(
            f"{name} is cut short: it stops at byte {size:,} without the zeros that close a tar"
        )
    file.seek(end)
    is_first = True
    while chunk := file.read(CHUNK):
        if is_first and any(chunk[:BLOCK]):
            raise ValueError(
                f"{name} has a damaged header at byte {end:,}: what follows cannot be read"
            )
        if any(chunk):
            raise ValueError(
                f"{name} goes on behind its end at byte {end:,}, which tar readers do not see. "
                "Was it joined out of several? Give them one by one."
            )
        is_first = False


def read_range(path: str | Path, offset: int, size: int) -> bytes:
    """Bytes of a file; fewer where it ends."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)
