"""The sample index of a split with very many shards: parts are fetched when they are needed.

A start maps one row a shard. A look-up finds the shard by bisection, and its part of the index
in memory, or among the Arrow files that this node keeps (``CACHE_BYTES`` of them, the ones
unused for longest give way), or in the data set; then it is checked once. Nothing grows with
the number of samples but the bisection's steps.

Shapes: N = samples of the split, B = shards, n = rows that are asked for.
"""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.arrow_files import map_batch, write_batch
from cbdm_scale.data.index_files import index_columns, index_types, part_name
from cbdm_scale.data.manifest import open_folder, prep_command
from cbdm_scale.storage.wording import clip

PARTS_OPEN = 256
"""Parts that a process keeps mapped: more than a step of 64 streams touches, old and new."""
CACHE_BYTES = 4 << 30
"""Bytes of parts that a node keeps for a split, of some 3 MB each."""


class Column:
    """One column of the whole split: ``column[rows]`` for a number or an array of rows."""

    def __init__(self, index: "PartitionedIndex", name: str):
        self.index, self.name = index, name

    def __getitem__(self, rows: Any) -> Any:
        if np.ndim(rows) == 0:
            return self.index.at(self.name, int(rows))
        return self.index.look_up(self.name, np.asarray(rows))


class PartitionedIndex:
    """As ``MappedIndex``, with columns that are asked row by row; pickles as paths.

    shard_sizes is (B,) int64; labels, shard_of, offsets, lengths and crc32 are ``Column``s.
    """

    def __init__(self, root: str, name: str, split: str, path: str) -> None:
        """``path``: this node's copy of the split's rows of shards.parquet."""
        self.root, self.name, self.split, self.path = root, name, split, path
        shards = map_batch(path)
        self._files = shards["file"]
        self.shard_sizes: NDArray[np.int64] = shards["samples"].to_numpy()
        self._parts: NDArray[np.int32] = shards["part"].to_numpy()
        self._label_min: NDArray[np.int64] = shards["label_min"].to_numpy()
        self._label_max: NDArray[np.int64] = shards["label_max"].to_numpy()
        self._ends: NDArray[np.int64] = np.cumsum(self.shard_sizes)  # (B,)
        self.num_samples = int(self._ends[-1])
        self.labels, self.offsets = Column(self, "label"), Column(self, "offset")
        self.lengths, self.crc32 = Column(self, "length"), Column(self, "crc32")
        self.shard_of = Column(self, "shard")
        self._open: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._last: tuple[int, int, int, dict[str, Any]] = (0, 0, 0, {})

    def __reduce__(self) -> tuple[type["PartitionedIndex"], tuple[str, ...]]:
        return PartitionedIndex, (self.root, self.name, self.split, self.path)

    def key(self, row: int) -> str:
        """The name of a sample."""
        return str(self.at("key", int(row)).as_py())

    def keys(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """The names of the samples at rows (n,)."""
        return tuple(self.look_up("key", np.asarray(rows)).tolist())

    def shard_name(self, shard: int) -> str:
        """The shard's file within the data set's folder, such as "train/000000.tar"."""
        return str(self._files[int(shard)].as_py())

    def at(self, column: str, row: int) -> Any:
        """One value. A reader asks for several of one row: its shard is found once."""
        start, end, shard, part = self._last
        if not start <= row < end:
            if not 0 <= row < self.num_samples:
                raise IndexError(f"row {row} of {self.num_samples}")
            shard = int(np.searchsorted(self._ends, row, side="right"))
            end = int(self._ends[shard])
            start = end - int(self.shard_sizes[shard])
            part = self._part(int(self._parts[shard]))
            self._last = start, end, shard, part
        return shard if column == "shard" else part[column][row - part["first"]]

    def look_up(self, column: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Values of a column: (n,) rows -> (n,)."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.num_samples:
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {self.num_samples}")
        shards = np.searchsorted(self._ends, rows, side="right").astype(np.int32)
        if column == "shard":
            return shards
        parts = self._parts[shards]
        values: NDArray[Any] | None = None
        for part in np.unique(parts).tolist():
            here = parts == part
            found = self._part(part)
            inside = rows[here] - found["first"]
            if column == "key":
                taken = np.array(found["key"].take(inside).to_pylist(), object)
            else:
                taken = found[column][inside]
            values = np.empty(len(rows), taken.dtype) if values is None else values
            values[here] = taken
        return np.empty(0, np.int64) if values is None else values

    def _part(self, part: int) -> dict[str, Any]:
        """The mapped columns of a part, and its first row."""
        with self._lock:
            found = self._open.get(part)
            if found is not None:
                self._open.move_to_end(part)
                return found
        path = Path(self.path).with_suffix("") / f"{part:05d}.arrow"
        try:
            batch = map_batch(path)
            os.utime(path)
        except FileNotFoundError:
            batch = self._fetch(part, path)
        except (ValueError, KeyError, TypeError, OSError):  # a node that lost power, say
            path.unlink(missing_ok=True)
            batch = self._fetch(part, path)
        first = int(np.searchsorted(self._parts, part))
        columns = {n: batch[n].to_numpy() for n in ("label", "offset", "length", "crc32")}
        start = int(self._ends[first] - self.shard_sizes[first])
        found = columns | {"key": batch["key"], "first": start}
        with self._lock:
            self._open[part] = found
            while len(self._open) > PARTS_OPEN:
                self._open.popitem(last=False)
        return found

    def _fetch(self, part: int, path: Path) -> Any:
        """Read a part from the data set, check it, and keep it on this node."""
        table = self._read(part)
        path.parent.mkdir(exist_ok=True)
        write_batch(path, table)
        batch = map_batch(path)
        _make_room(path.parent)
        return batch

    def _read(self, part: int) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        fs, folder = open_folder(self.root, self.name)
        where = f"{folder}/{part_name(part)}"
        way_out = (
            "Copy it again, or make the data set again with "
            f"{prep_command(self.root, self.name)} --force-overwrite"
        )
        try:
            raw = fs.cat_file(where)
        except FileNotFoundError:
            raise ValueError(f"{where} is missing. {way_out}") from None
        try:
            with pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True) as file:
                meta = file.metadata
                groups = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
                table = file.read(columns=["shard", *index_types()], use_threads=False)
            columns = index_columns(table)
        except (KeyError, ValueError, OSError, pa.ArrowException) as error:
            raise ValueError(f"{where} is damaged ({clip(error)}). {way_out}") from error
        wrong = self._disagreement(part, groups, table)
        if wrong:
            raise ValueError(f"{where} does not agree with shards.parquet: {wrong}. {way_out}")
        return pa.table(columns)

    def _disagreement(self, part: int, groups: list[int], table: Any) -> str:
        """What a part says that shards.parquet does not; "" if nothing."""
        first, end = np.searchsorted(self._parts, [part, part + 1]).tolist()
        if groups != self.shard_sizes[first:end].tolist():
            return f"it has {len(groups)} row groups of {sum(groups)} rows"
        labels, shards, start = table["label"].to_numpy(), table["shard"], 0
        for i, size in zip(range(first, end), groups, strict=True):
            names = set(shards.slice(start, size).unique().to_pylist())
            if names != {self.shard_name(i)}:
                return f"row group {i - first} is not {self.shard_name(i)}"
            mine = labels[start : start + size]
            if mine.min() != self._label_min[i] or mine.max() != self._label_max[i]:
                return f"the labels of {self.shard_name(i)} are others"
            start += size
        return ""


def _make_room(folder: Path) -> None:
    """Remove the parts that are unused for longest beyond ``CACHE_BYTES``; maps stay valid."""
    try:
        kept = sorted(
            ((f.stat().st_mtime_ns, f.stat().st_size, f) for f in folder.glob("*.arrow")),
            reverse=True,
        )
    except FileNotFoundError:  # another process is making room
        return
    total = 0
    for _, size, file in kept:
        total += size
        if total > CACHE_BYTES:
            file.unlink(missing_ok=True)
