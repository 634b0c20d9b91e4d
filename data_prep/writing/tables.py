"""index.parquet and shards.parquet: the one place that writes the tables of a data set."""

from collections.abc import Iterable
from pathlib import Path

from cbdm_scale.data.index_files import TableWriter
from data_prep.writing.records import ShardRecord


def write_tables(records: Iterable[ShardRecord], folder: Path, num_shards: int) -> None:
    """Write both from the records of all shards, in order, of which one at a time is held.

    ``num_shards`` decides whether the index is one file or in parts; some may be left out.
    """
    with TableWriter(folder, num_shards) as tables:
        for record in records:
            tables.add(record.file, record.rows, record.num_bytes, record.sha256)
