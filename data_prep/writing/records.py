"""What is kept of a finished shard: its rows of the index, its sha256, and who was left out.

A record is written after its tar and whole or not at all, so a shard that has one is finished.
It is a Parquet file: the rows, and the rest as JSON among the schema's metadata.
"""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bad:
    """A sample that the source could not give."""

    row: int
    """Its position in the split."""
    key: str
    label: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    file: str
    """Within the data set, such as "train/000000.tar"."""
    num_bytes: int
    sha256: str
    bad: tuple[Bad, ...]
    rows: Any
    """The shard's rows of the index, a pyarrow table."""

    @property
    def split(self) -> str:
        """Of the data set, such as train."""
        return self.file.split("/")[0]

    @property
    def num_samples(self) -> int:
        """Images in the shard."""
        return int(self.rows.num_rows)

    def to_bytes(self) -> bytes:
        """The record as a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        bad = [(b.row, b.key, b.label, b.reason) for b in self.bad]
        text = {"file": self.file, "bytes": self.num_bytes, "sha256": self.sha256, "bad": bad}
        sink = pa.BufferOutputStream()
        table = self.rows.replace_schema_metadata({"shard": json.dumps(text)})
        pq.write_table(table, sink, write_page_checksum=True)
        return bytes(sink.getvalue())


def parse_record(raw: bytes) -> ShardRecord:
    """The inverse of ``ShardRecord.to_bytes``; ValueError or OSError where it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True) as file:
        table = file.read(use_threads=False)
    text = json.loads(table.schema.metadata[b"shard"])
    return ShardRecord(
        file=str(text["file"]),
        num_bytes=int(text["bytes"]),
        sha256=str(text["sha256"]),
        bad=tuple(Bad(*b) for b in text["bad"]),
        rows=table.replace_schema_metadata(None),
    )
