"""The digits in many small shards, their index in one file and in parts."""

import hashlib
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_tools import make_digits

from cbdm_scale.data import index_files
from cbdm_scale.data.index import open_index
from cbdm_scale.data.index_files import TableWriter, part_name
from cbdm_scale.data.partitioned_index import PartitionedIndex

COLUMNS = "labels", "shard_of", "offsets", "lengths", "crc32"
SIZES = {"train": 428, "eval": 1797}
REMAKE = "make the data set again with .*prepare digits-lt"


def small_parts(patch):
    patch.setattr(index_files, "MOST_GROUPS", 10)
    patch.setattr(index_files, "GROUPS_A_PART", 4)


def split_tables(folder):
    """Write the tables of a data set again, its index in parts; dataset.json names them."""
    shards = pq.read_table(folder / "shards.parquet").to_pylist()
    with pq.ParquetFile(folder / "index.parquet") as index:
        rows = [index.read_row_group(i) for i in range(index.num_row_groups)]
    (folder / "index.parquet").unlink()
    with pytest.MonkeyPatch.context() as patch:
        small_parts(patch)
        with TableWriter(folder, len(shards)) as tables:
            for shard, table in zip(shards, rows, strict=True):
                tables.add(shard["file"], table, shard["bytes"], shard["sha256"])
    name_tables(folder)


def name_tables(folder):
    text = json.loads((folder / "dataset.json").read_text())
    digest = hashlib.sha256((folder / "shards.parquet").read_bytes()).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(text | {"shards_sha256": digest}))


@pytest.fixture(scope="module")
def parts_made(tmp_path_factory):
    """112 shards of 20 digits, in one file and in parts of four shards: 6 train, 23 eval."""
    root = tmp_path_factory.mktemp("shards")
    make_digits(root / "one", samples_per_shard=20)
    shutil.copytree(root / "one", root / "parts")
    split_tables(root / "parts/digits_lt")
    return root


@pytest.fixture
def parts_root(parts_made, tmp_path, monkeypatch):
    """A copy that a test may damage, and an index cache of its own."""
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(parts_made / "parts", tmp_path / "shards")
    return tmp_path / "shards"


def open_parts(root, split="train"):
    index = open_index(str(root), "digits_lt", split)
    assert isinstance(index, PartitionedIndex)
    return index


def rewrite_part(root, part, change):
    """``change`` gets and gives each row group as columns of lists."""
    path = root / "digits_lt" / part_name(part)
    with pq.ParquetFile(path) as old:
        groups = [old.read_row_group(i).to_pydict() for i in range(old.num_row_groups)]
        schema = old.schema_arrow
    with pq.ParquetWriter(path, schema) as new:
        for i, columns in enumerate(groups):
            new.write_table(pa.table(change(i, columns), schema))


def rewrite_shards(root, change):
    """Change the columns of shards.parquet, and dataset.json with them."""
    folder = root / "digits_lt"
    table = pq.read_table(folder / "shards.parquet")
    pq.write_table(pa.table(change(table.to_pydict()), table.schema), folder / "shards.parquet")
    name_tables(folder)
