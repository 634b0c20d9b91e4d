"""Tars of samples: their members, where these lie, and which belong together.

WebDataset groups the members and writes tars (``writing.tars``). It does not walk them: like
Python's tarfile, on which it stands, it takes a damaged header or a cut between two members for
the end of the file and loses what follows without a word; here the caller learns where the walk
ended and whether that was the end. Nor does it open them, as it hands what follows ``pipe:`` to
a shell. Its decoders, which unpickle, are not used either.
"""

import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 20


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    offset: int
    """First byte of its content."""
    size: int


class Walk(NamedTuple):
    """What was found in a tar."""

    members: list[Member]
    """In the order of the tar; where it is damaged, those before that."""
    end: int
    """The byte at which a reader sees no further member."""
    error: str
    """Why there could be more; "" if ``end`` looked like the end."""


def walk_tar(path: str | Path) -> Walk:
    """All regular files of an uncompressed tar. Damage is told in the result, not raised."""
    members, end, reason = [], 0, ""
    with open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for info in tar:
                    if info.issparse():
                        raise ValueError(f"{info.name!r} is sparse")
                    if info.isreg():
                        members.append(Member(info.name, info.offset_data, info.size))
                end = tar.offset
        except Exception as error:  # tarfile has many ways to fail on damaged bytes
            reason = str(error) or type(error).__name__
    return Walk(members, end, reason)


def sample_key(name: str) -> str | None:
    """What WebDataset takes for a sample's key: all up to the first dot of the last part.

    None for a name that is part of no sample: without a key or a suffix, or with a suffix of
    WebDataset's own (__url__).
    """
    from webdataset.tariterators import base_plus_ext

    key, suffix = base_plus_ext(name)
    return key if suffix and not suffix.startswith("__") else None


def group_members(
    members: Iterable[Member], suffixes: Collection[str], twice: Callable[[str], None]
) -> Iterator[tuple[str, dict[str, Member]]]:
    """(key, {suffix: member}) of the samples, as WebDataset groups them: neighbours of one key.

    Only the wanted suffixes (in lower case) are kept. ``twice`` is called with the name of a
    member that its sample has already; it may raise, or else the member is left out.
    """
    from webdataset.tariterators import group_by_keys

    latest = ""

    def files() -> Iterator[dict[str, object]]:
        nonlocal latest
        for member in members:
            if sample_key(member.name) is not None:
                latest = member.name
                yield {"fname": member.name, "data": member, "__url__": ""}

    def handle(error: Exception) -> bool:
        twice(latest)
        return True

    for sample in group_by_keys(files(), suffixes=set(suffixes), handler=handle):
        yield sample["__key__"], {s: m for s, m in sample.items() if s in suffixes}


def read_range(path: str | Path, offset: int, size: int) -> bytes:
    """Bytes of a file; fewer where it ends."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def has_bytes(path: str | Path, start: int) -> bool:
    """Whether anything but zeros follows in a file."""
    with open(path, "rb") as file:
        file.seek(start)
        return any(any(part) for part in iter(lambda: file.read(CHUNK), b""))
