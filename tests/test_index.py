import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from process_tools import sent
from shard_tools import copy_digits, edit_index

from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest

REMAKE = r"prepare digits-lt --out .* --force-overwrite"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    copy_digits(root)
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    """A copy of the data set that a test may damage, and an index cache of its own."""
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made, tmp_path / "shards")
    return tmp_path / "shards"


def test_index_with_other_labels_is_refused(root):
    def change(i, columns):
        columns["label"][0] = (columns["label"][0] + 1) % 10
        return columns

    edit_index(root / "digits_lt", change)
    with pytest.raises(
        ValueError, match=f"counts 171 .* of class 0, dataset.json 174.*{REMAKE}"
    ):
        open_index(str(root), "digits_lt", "train")


def test_index_with_shards_swapped_is_refused(root):
    def change(i, columns):
        columns["shard"] = ["train/000007.tar"] * len(columns["shard"])
        return columns

    edit_index(root / "digits_lt", change)
    with pytest.raises(ValueError, match="row group 0 is not train/000000.tar"):
        open_index(str(root), "digits_lt", "train")


def test_flipped_bits_in_the_index_are_found(root):
    path = root / "digits_lt/index.parquet"
    column = pq.ParquetFile(path).metadata.row_group(0).column(4)  # offset
    raw = bytearray(path.read_bytes())
    raw[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="index.parquet is damaged"):
        open_index(str(root), "digits_lt", "train")


def test_an_index_without_a_column_or_with_holes_is_damaged(root):
    path = root / "digits_lt/index.parquet"
    whole = path.read_bytes()
    for change, words in (
        (lambda t: t.drop(["crc32"]), "crc32"),
        (lambda t: t.set_column(4, "offset", pa.nulls(len(t), pa.int64())), "offset has holes"),
    ):
        path.write_bytes(whole)
        old = pq.ParquetFile(io.BytesIO(whole))
        groups = [change(old.read_row_group(i)) for i in range(old.num_row_groups)]
        with pq.ParquetWriter(path, groups[0].schema) as new:
            for group in groups:
                new.write_table(group)
        with pytest.raises(ValueError, match=f"index.parquet is damaged .*{words}"):
            open_index(str(root), "digits_lt", "train")


@pytest.mark.parametrize("split", ["train", "eval"])
def test_index_is_the_table_in_tar_order(root, split):
    index = open_index(str(root), "digits-lt", split)
    table = pq.read_table(root / "digits_lt/index.parquet").to_pandas()
    table = table[table["split"] == split].reset_index()
    n = {"train": 428, "eval": 1797}[split]
    assert index.num_samples == n
    assert index.shard_sizes.tolist() == [100] * (n // 100) + [n % 100]
    assert index.labels.dtype == np.int64
    for column, values in [
        ("label", index.labels),
        ("offset", index.offsets),
        ("length", index.lengths),
        ("crc32", index.crc32),
    ]:
        np.testing.assert_array_equal(values, table[column])
    assert [index.key(i) for i in range(n)] == list(table.key)
    assert [index.shard_name(s) for s in index.shard_of] == list(table.shard)
    assert (np.diff(index.shard_of) >= 0).all()
    per_shard = np.split(index.offsets, np.cumsum(index.shard_sizes)[:-1])
    assert all((np.diff(offsets) > 0).all() for offsets in per_shard)


def test_index_columns_are_mapped_not_copied(root):
    index = open_index(str(root), "digits_lt", "eval")
    for column in (index.labels, index.shard_of, index.offsets, index.lengths, index.crc32):
        assert not column.flags.owndata
        assert not column.flags.writeable


def test_index_is_cached_once_per_content(root, tmp_path, monkeypatch):
    open_index(str(root), "digits_lt", "train")
    (cached,) = (tmp_path / "cache").glob("*.arrow")
    assert read_manifest(str(root), "digits_lt").fingerprint in cached.name
    before = cached.stat().st_mtime_ns
    open_index(str(root), "digits_lt", "train")
    assert cached.stat().st_mtime_ns == before
    assert not list((tmp_path / "cache").glob("*.tmp"))


@pytest.mark.parametrize("keep", [0, 100, 9000])
def test_damaged_cache_is_made_again(root, tmp_path, keep):
    whole = open_index(str(root), "digits_lt", "train").labels.tolist()
    (cached,) = (tmp_path / "cache").glob("*.arrow")
    damaged = cached.read_bytes()[:keep]
    cached.unlink()  # the file that is mapped stays as it is
    cached.write_bytes(damaged)
    assert open_index(str(root), "digits_lt", "train").labels.tolist() == whole


def test_index_pickles_as_its_path(root):
    index = open_index(str(root), "digits_lt", "eval")
    np.testing.assert_array_equal(sent(index, most=1000).labels, index.labels)


def test_unknown_split_is_named(root):
    with pytest.raises(ValueError, match="no split val; it has eval, train"):
        open_index(str(root), "digits_lt", "val")


def test_cache_that_cannot_be_used_is_named(root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(ValueError, match="CBDM_SCALE_CACHE .* cannot be used"):
        open_index(str(root), "digits_lt", "train")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_reading_leaves_no_arrow_thread_behind(root, tmp_path):
    """One that outlives its read over a Python file may abort or hang the process at exit."""
    code = "import os, pyarrow.parquet\nfrom cbdm_scale.data.index import open_index\n"
    code += "before = set(os.listdir('/proc/self/task'))\n"
    code += f"open_index({str(root)!r}, 'digits_lt', 'train')\n"
    code += "print(len(set(os.listdir('/proc/self/task')) - before))"
    environment = os.environ | {"CBDM_SCALE_CACHE": str(tmp_path / "cold")}
    repository = Path(__file__).parents[1]
    child = [sys.executable, "-c", code]
    done = subprocess.run(child, cwd=repository, env=environment, capture_output=True)
    assert done.stdout.decode().strip() == "0", done.stderr.decode()
