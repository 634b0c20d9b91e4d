"""index.parquet and shards.parquet: the one place that writes the tables of a data set."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.records import ShardRecord, index_schema


def write_tables(records: Iterable[ShardRecord], folder: Path) -> None:
    """Write both from the records of all shards, in order, of which one at a time is held."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards: list[dict[str, Any]] = []
    path = folder / "index.parquet"
    with pq.ParquetWriter(path, index_schema(), write_page_checksum=True) as index:
        for record in records:
            index.write_table(record.rows, row_group_size=record.num_samples)
            sizes = {"samples": record.num_samples, "bytes": record.num_bytes}
            shards.append({"file": record.file, **sizes, "sha256": record.sha256})
    schema = pa.schema(
        {"file": pa.string(), "samples": pa.int64(), "bytes": pa.int64(), "sha256": pa.string()}
    )
    pq.write_table(pa.Table.from_pylist(shards, schema), folder / "shards.parquet")
