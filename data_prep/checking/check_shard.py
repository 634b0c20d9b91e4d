"""One shard compared with what the tables say of it: every header, label, image and byte.

K = number of classes, n = samples of the shard.
"""

import hashlib
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.images import decode
from cbdm_scale.data.manifest import open_folder
from data_prep.tars import group_members, has_bytes, walk_tar

IMAGE_SUFFIXES = "png", "jpg", "jpeg", "webp"


@dataclass(frozen=True)
class Expected:
    """A row of shards.parquet, and the rows of the index; None where a table is unreadable."""

    file: str
    samples: int | None = None
    num_bytes: int | None = None
    sha256: str | None = None
    row_group: int | None = None
    index_file: str = "index.parquet"
    """The file of the index that holds this row group."""


@dataclass
class Findings:
    """What a shard really holds, and all that is wrong with it."""

    file: str
    labels: NDArray[np.int64]
    """(n,), those that are numbers of classes."""
    keys: NDArray[np.uint64]
    """(n,) hashes, to find keys that stand twice."""
    num_bytes: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """One more thing that is wrong with the shard."""
        self.wrong.append(f"{self.file}: {text}")


@dataclass(frozen=True)
class _Sample:
    key: str
    members: dict[str, tuple[int, int]]
    """Suffix -> (offset, length) of the bytes in the tar."""


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    root: str
    name: str
    channels: int
    image_size: int
    num_classes: int

    def __call__(self, expected: Expected) -> Findings:
        nothing = np.zeros(0, np.int64)
        found = Findings(expected.file, nothing, nothing.astype(np.uint64))
        try:
            with self._local(expected.file) as path:
                self._check_file(path, expected, found)
                samples = list(_walk(path, found))
                if expected.samples is not None and len(samples) != expected.samples:
                    found.add(
                        f"holds {len(samples)} samples, shards.parquet says {expected.samples}"
                    )
                with open(path, "rb") as stream:
                    self._check_samples(stream, samples, self._rows(expected, found), found)
        except FileNotFoundError:
            found.add("is missing")
        return found

    @contextmanager
    def _local(self, file: str) -> Iterator[Path]:
        """The tar as a local file, of a store a copy."""
        store, folder = open_folder(self.root, self.name)
        path = f"{folder}/{file}"
        if store.is_local:
            yield Path(path)
            return
        with tempfile.NamedTemporaryFile(prefix="verify-") as copy:
            for part in store.parts(path, store.size(path) or 0):
                copy.write(part)
            copy.flush()
            yield Path(copy.name)

    def _check_file(self, path: Path, expected: Expected, found: Findings) -> None:
        found.num_bytes = path.stat().st_size
        if expected.num_bytes not in (None, found.num_bytes):
            found.add(f"has {found.num_bytes} bytes, shards.parquet says {expected.num_bytes}")
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if expected.sha256 not in (None, digest):
            found.add("does not have the sha256 that shards.parquet says")

    def _rows(self, expected: Expected, found: Findings) -> dict[str, dict[str, Any]] | None:
        """The shard's rows of the index by key; None if they cannot be read."""
        if expected.row_group is None:
            return None
        try:
            table = read_index_rows(
                self.root, self.name, expected.row_group, expected.index_file
            )
            rows: list[dict[str, Any]] = table.to_pylist()
            by_key = {row["key"]: row for row in rows}
        except (ValueError, KeyError, OSError) as error:  # pyarrow's errors are ValueErrors
            found.add(f"its rows of index.parquet cannot be read ({error})")
            return None
        for shard in sorted({row["shard"] for row in rows} - {expected.file}):
            found.add(f"row group {expected.row_group} of index.parquet is of {shard}")
        if len(by_key) < len(rows):
            found.add(f"{len(rows) - len(by_key)} keys stand twice in index.parquet")
        return by_key

    def _check_samples(
        self,
        stream: BinaryIO,
        samples: list[_Sample],
        rows: dict[str, dict[str, Any]] | None,
        found: Findings,
    ) -> None:
        labels, keys = [], []
        for sample in samples:
            keys.append(int.from_bytes(hashlib.sha256(sample.key.encode()).digest()[:8]))
            label = self._label(stream, sample, found)
            if label is not None:
                labels.append(label)
            faults = self._image_faults(stream, sample)
            if rows is not None:
                row = rows.pop(sample.key, None)
                faults += _index_faults(stream, sample, label, row)
            if faults:
                found.add(f"sample {sample.key}: {'; '.join(faults)}")
        for key in rows or ():
            found.add(f"sample {key}: is in index.parquet and not in the tar")
        found.labels, found.keys = np.array(labels, np.int64), np.array(keys, np.uint64)

    def _label(self, stream: BinaryIO, sample: _Sample, found: Findings) -> int | None:
        text = _read(stream, sample.members.get("cls", (0, 0)))
        try:
            label = int(text)
        except ValueError:
            found.add(f"sample {sample.key}: has no label ({text[:20]!r})")
            return None
        if 0 <= label < self.num_classes:
            return label
        found.add(f"sample {sample.key}: has label {label}, outside 0..{self.num_classes - 1}")
        return None

    def _image_faults(self, stream: BinaryIO, sample: _Sample) -> list[str]:
        place = _image_place(sample)
        if place is None:
            return ["has no image"]
        try:
            decode(_read(stream, place), self.channels, self.image_size)
        except ValueError as error:
            return [str(error)]
        return []


def _index_faults(
    stream: BinaryIO, sample: _Sample, label: int | None, row: dict[str, Any] | None
) -> list[str]:
    if row is None:
        return ["is not in index.parquet"]
    place, faults = _image_place(sample), []
    if label is not None and label != row["label"]:
        faults.append(f"has label {label}, index.parquet says {row['label']}")
    if place is not None and place != (row["offset"], row["length"]):
        faults.append(
            f"its image is {place[1]} bytes at {place[0]}, index.parquet says "
            f"{row['length']} at {row['offset']}"
        )
    elif place is not None and zlib.crc32(_read(stream, place)) != row["crc32"]:
        faults.append("its image does not have the crc32 of index.parquet")
    return faults


def _image_place(sample: _Sample) -> tuple[int, int] | None:
    members = sample.members
    return next((members[s] for s in IMAGE_SUFFIXES if s in members), None)


def _read(stream: BinaryIO, place: tuple[int, int]) -> bytes:
    stream.seek(place[0])
    return stream.read(place[1])


def _walk(path: Path, found: Findings) -> Iterator[_Sample]:
    """The samples of a tar as WebDataset groups them; what ends it too early is found."""
    members, end, error = walk_tar(path)
    if error:
        found.add(f"is cut short or no tar ({error})")
    elif has_bytes(path, end):
        found.add(f"its header at byte {end} is damaged; what follows is unseen")

    def twice(name: str) -> None:
        found.add(f"holds {name!r} twice")

    for key, parts in group_members(members, (*IMAGE_SUFFIXES, "cls"), twice):
        yield _Sample(key, {suffix: (m.offset, m.size) for suffix, m in parts.items()})


# ----------------------------------------------------------------------------
# The one place here that knows index.parquet.


def num_index_groups(root: str, name: str, file: str) -> int:
    """Row groups of index.parquet, or of one of its parts."""
    with _open_index(root, name, file) as index:
        return int(index.num_row_groups)


def read_index_rows(root: str, name: str, row_group: int, file: str) -> Any:
    """The rows of one shard, a pyarrow table."""
    with _open_index(root, name, file) as index:
        return index.read_row_group(row_group, use_threads=False)


@contextmanager
def _open_index(root: str, name: str, file: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    store, folder = open_folder(root, name)
    with (
        store.open(f"{folder}/{file}") as stream,
        pq.ParquetFile(stream, page_checksum_verification=True) as index,
    ):
        yield index
