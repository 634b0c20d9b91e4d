"""The tables of a data set on disk: shards.parquet and index.parquet, written and checked.

Up to ``MOST_GROUPS`` shards index.parquet is one file. Beyond, everybody would parse its footer
for a few rows, so it is a folder of parts, and shards.parquet says what a start needs:

    index.parquet                    one row a sample, one row group a shard, in their order
    index.parquet/part-00000.parquet the same of a few shards: ``GROUPS_A_PART`` row groups
                                     or ``ROWS_A_PART`` rows at most, and of one split
    shards.parquet                   one row a shard: file, samples, bytes, sha256 and, where
                                     there are parts: part, label_min, label_max
"""

from pathlib import Path
from typing import Any

from cbdm_scale.storage.wording import shorten

MOST_GROUPS = 4096
GROUPS_A_PART = 256
ROWS_A_PART = 65_536
SMALLEST_TELLING_SHARD = 20
"""Samples from which on a shard of a single class is worth a warning."""


def mixing_warning(files: list[str]) -> str:
    """What is wrong with shards of a single class."""
    return (
        f"{len(files)} shards hold a single class each ({shorten(files, 3)}): batches will be "
        "mixed less well than with data_prep's own shards, which spread the classes over all "
        "of them"
    )


def part_name(part: int) -> str:
    """A part of the index, within the data set's folder."""
    return f"index.parquet/part-{part:05d}.parquet"


class TableWriter:
    """Writes both tables from one shard after the other; as a context, whole at its end."""

    def __init__(self, folder: Path, num_shards: int):
        self.folder, self.is_partitioned = folder, num_shards > MOST_GROUPS
        self._writer: Any = None
        self._part, self._groups, self._rows, self._split = -1, 0, 0, ""
        self._shards: dict[str, list[Any]] = {
            name: [] for name in shards_schema(self.is_partitioned).names
        }

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._writer is None and error is None:
            self._open(self.folder / "index.parquet")  # no shards: a table without rows
        if self._writer is not None:
            self._writer.close()
        if error is None:
            self._write_shards()

    def add(self, file: str, rows: Any, num_bytes: int, sha256: str) -> None:
        """The next shard: its name, its rows of ``index_schema``, size and sha256."""
        split = file.split("/")[0]
        if not self.is_partitioned:
            if self._writer is None:
                self._open(self.folder / "index.parquet")
        elif (
            self._part < 0
            or split != self._split
            or self._groups == GROUPS_A_PART
            or self._rows + rows.num_rows > ROWS_A_PART
        ):
            self._next_part(split)
        self._writer.write_table(rows, row_group_size=rows.num_rows)
        self._groups += 1
        self._rows += rows.num_rows
        shard: dict[str, Any] = {"file": file, "samples": rows.num_rows, "bytes": num_bytes}
        shard["sha256"] = sha256
        if self.is_partitioned:
            labels = rows["label"].to_numpy()
            shard |= {"part": self._part, "label_min": labels.min(), "label_max": labels.max()}
        for name, value in shard.items():
            self._shards[name].append(value)

    def _next_part(self, split: str) -> None:
        if self._writer is not None:
            self._writer.close()
        self._part, self._groups, self._rows, self._split = self._part + 1, 0, 0, split
        path = self.folder / part_name(self._part)
        path.parent.mkdir(exist_ok=True)
        self._open(path)

    def _open(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(path, index_schema(), write_page_checksum=True)

    def _write_shards(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(self._shards, shards_schema(self.is_partitioned))
        pq.write_table(table, self.folder / "shards.parquet")


def index_schema() -> Any:
    """Columns and types of index.parquet."""
    import pyarrow as pa

    return pa.schema(
        {
            "split": pa.string(),
            "shard": pa.string(),
            "key": pa.string(),
            "label": pa.int64(),
            "offset": pa.int64(),
            "length": pa.int64(),
            "crc32": pa.uint32(),
        }
    )


def index_types() -> dict[str, Any]:
    """The columns that reading needs, and their types in memory."""
    import pyarrow as pa

    return {
        "key": pa.large_string(),
        "label": pa.int64(),
        "offset": pa.int64(),
        "length": pa.int64(),
        "crc32": pa.uint32(),
    }


def index_columns(rows: Any) -> dict[str, Any]:
    """The columns of ``index_types`` in those types; KeyError or ValueError if one is not."""
    found = {name: rows[name].cast(kind) for name, kind in index_types().items()}
    if holes := [name for name, column in found.items() if column.null_count]:
        raise ValueError(f"its column {holes[0]} has holes")
    return found


def shards_schema(is_partitioned: bool) -> Any:
    """Columns and types of shards.parquet."""
    import pyarrow as pa

    plain = {"file": pa.string(), "samples": pa.int64(), "bytes": pa.int64()}
    partitioned = {"part": pa.int32(), "label_min": pa.int64(), "label_max": pa.int64()}
    return pa.schema(plain | {"sha256": pa.string()} | (partitioned if is_partitioned else {}))


def parse_shards(raw: bytes, *, with_sha256: bool = False) -> Any:
    """shards.parquet as an Arrow table; sha256, most of its bytes, only where it is needed.

    Here and for the index: from memory and without Arrow's threads. Those may outlive the call
    and then abort the process, or hang it, at exit (apache/arrow issues 33975 and 50482).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(raw)) as file:
        wanted = [name for name in file.schema_arrow.names if with_sha256 or name != "sha256"]
        table = file.read(columns=wanted, use_threads=False)
    for field in shards_schema(is_partitioned(table)):
        if field.name == "sha256" and not with_sha256:
            continue
        place = table.schema.get_field_index(field.name)
        if place < 0 or table.schema.types[place] != field.type:
            raise ValueError(f"it lacks a column {field.name} of {field.type}")
        if table.column(place).null_count:
            raise ValueError(f"its column {field.name} has holes")
    return table


def is_partitioned(shards: Any) -> bool:
    """Whether this shards.parquet belongs to an index in parts."""
    return "part" in shards.schema.names


def in_split(shards: Any, split: str) -> Any:
    """The rows of one split, in their order: shards.parquet as a table -> the same."""
    import pyarrow.compute as pc

    return shards.filter(pc.starts_with(shards["file"], split + "/"))


def check_partitioned(shards: Any, num_classes: int, splits: list[str]) -> list[str]:
    """Check what shards.parquet says of an index in parts; the files of a single class.

    ValueError names the shard whose labels are no classes, or parts that are out of order.
    """
    import numpy as np

    low, high = (shards[name].to_numpy() for name in ("label_min", "label_max"))
    wrong = np.flatnonzero((low < 0) | (high >= num_classes))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"index.parquet has label {low[i] if low[i] < 0 else high[i]} in "
            f"{shards['file'][i].as_py()}, outside 0..{num_classes - 1}"
        )
    seen: set[int] = set()
    for split in splits:
        parts = in_split(shards, split)["part"].to_numpy()
        mine = set(np.unique(parts).tolist())
        if not set(np.diff(parts).tolist()) <= {0, 1} or mine & seen:
            raise ValueError(f"shards.parquet has parts of the {split} index out of order")
        seen |= mine
    samples = shards["samples"].to_numpy()
    one_class = np.flatnonzero((low == high) & (samples >= SMALLEST_TELLING_SHARD))
    return [str(shards["file"][int(i)].as_py()) for i in one_class]


def check_one_file(stream: Any, shards: list[dict[str, Any]], num_classes: int) -> list[str]:
    """Check the footer of an index in one file (rows and label range per row group).

    The files of a single class; a ValueError says what does not agree with shards.parquet.
    """
    import pyarrow.parquet as pq

    one_class = []
    with stream, pq.ParquetFile(stream) as index:
        meta = index.metadata
        column = index.schema_arrow.get_field_index("label")
        if column < 0 or meta.num_row_groups != len(shards):
            raise ValueError(
                f"index.parquet has {meta.num_row_groups} row groups and "
                f"{'no' if column < 0 else 'a'} label column; expected one per shard "
                f"({len(shards)})"
            )
        for i, shard in enumerate(shards):
            group = meta.row_group(i)
            if group.num_rows != shard["samples"]:
                raise ValueError(
                    f"index.parquet has {group.num_rows} samples of {shard['file']}, "
                    f"shards.parquet {shard['samples']}"
                )
            low, high = _label_range(index, i, group.column(column).statistics)
            if low < 0 or high >= num_classes:
                raise ValueError(
                    f"index.parquet has label {low if low < 0 else high} in {shard['file']}, "
                    f"outside 0..{num_classes - 1}"
                )
            if low == high and group.num_rows >= SMALLEST_TELLING_SHARD:
                one_class.append(shard["file"])
    return one_class


def _label_range(index: Any, row_group: int, statistics: Any) -> tuple[int, int]:
    if statistics is not None and statistics.has_min_max:
        return int(statistics.min), int(statistics.max)
    labels = index.read_row_group(row_group, columns=["label"], use_threads=False)["label"]
    return min(labels.to_pylist()), max(labels.to_pylist())
