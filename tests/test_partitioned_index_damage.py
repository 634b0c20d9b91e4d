"""Damage to an index in parts is found where a part is first read."""

import pyarrow.parquet as pq
import pytest
from partitioned_tools import REMAKE, open_parts, rewrite_part, rewrite_shards

from cbdm_scale.data.index_files import part_name
from cbdm_scale.data.manifest import read_manifest
from data_prep.checking.verify import verify


def test_verify_reads_every_part(parts_root):
    assert verify(str(parts_root), "digits_lt").wrong == []
    flip_bits(parts_root)
    (parts_root / "digits_lt" / part_name(3)).unlink()
    wrong = "\n".join(verify(str(parts_root), "digits_lt").wrong)
    assert "index.parquet/part-00003.parquet: is missing" in wrong
    assert "train/000004.tar: its rows of index.parquet cannot be read" in wrong
    assert "train/000000.tar" not in wrong


def flip_bits(root):
    path = root / "digits_lt" / part_name(1)
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(4)  # offset
    raw = bytearray(path.read_bytes())
    raw[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flip_bits, "part-00001.parquet is damaged"),
        (
            lambda root: (root / "digits_lt" / part_name(1)).unlink(),
            "00001.parquet is missing",
        ),
        (
            lambda root: (root / "digits_lt" / part_name(1)).write_bytes(b"PAR1"),
            "is damaged",
        ),
        (
            lambda root: rewrite_part(root, 1, lambda i, c: {k: v[1:] for k, v in c.items()}),
            "4 row groups of 76 rows",
        ),
        (
            lambda root: rewrite_part(
                root,
                1,
                lambda i, c: c | {"shard": ["train/000009.tar"] * len(c["shard"])},
            ),
            "row group 0 is not train/000004.tar",
        ),
        (
            lambda root: rewrite_part(root, 1, lambda i, c: c | {"label": [0] * 20}),
            "the labels of train/000004.tar are others",
        ),
    ],
)
def test_a_damaged_part_is_named_when_it_is_first_read(parts_root, harm, message):
    harm(parts_root)
    index = open_parts(parts_root)
    assert index.labels[0] >= 0
    with pytest.raises(ValueError, match=f"{message}.*{REMAKE}"):
        index.labels[100]


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("label_max", 3, 10, "label 10 in train/000003.tar, outside 0..9"),
        ("label_min", 3, -1, "label -1 in train/000003.tar, outside 0..9"),
        ("part", 3, 7, "parts of the train index out of order"),
        ("samples", 3, 19, "the shards hold 427 train samples, dataset.json says 428"),
        ("bytes", 0, 5, "train/000000.tar has .* bytes, shards.parquet says 5 bytes"),
    ],
)
def test_what_shards_parquet_says_is_checked_at_the_start(
    parts_root, column, row, value, message
):
    def change(columns):
        columns[column][row] = value
        return columns

    rewrite_shards(parts_root, change)
    with pytest.raises(ValueError, match=f"{message}.*Make it again: .*prepare"):
        read_manifest(str(parts_root), "digits_lt")


@pytest.mark.parametrize("part", [0, 28])
def test_a_missing_end_of_the_index_is_found_at_the_start(parts_root, part):
    (parts_root / "digits_lt" / part_name(part)).unlink()
    with pytest.raises(ValueError, match=f"part-{part:05d}.parquet is missing"):
        read_manifest(str(parts_root), "digits_lt")


def test_shards_of_one_class_are_warned_of(parts_root):
    rewrite_shards(parts_root, lambda columns: columns | {"label_max": columns["label_min"]})
    with pytest.warns(UserWarning, match="110 shards .*single class each .train/000000.tar"):
        read_manifest(str(parts_root), "digits_lt")
