import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import dataset_folder, parse_manifest, read_manifest
from data_prep.prepare import Options, prepare

REMAKE = r"python -m data_prep digits-lt --out .* --force-overwrite"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    options = Options(out=str(root), samples_per_shard=100, classifier=False)
    prepare("digits-lt", options, say=lambda line: None)
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    """A copy of the data set that a test may damage, and an index cache of its own."""
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made, tmp_path / "shards")
    return tmp_path / "shards"


def edit_index(folder, change):
    """Rewrite index.parquet group by group; ``change`` gets and gives columns as lists."""
    raw = (folder / "index.parquet").read_bytes()
    old = pq.ParquetFile(io.BytesIO(raw))
    with pq.ParquetWriter(folder / "index.parquet", old.schema_arrow) as new:
        for i in range(old.num_row_groups):
            columns = change(i, old.read_row_group(i).to_pydict())
            new.write_table(pa.table(columns, old.schema_arrow))


def test_manifest_holds_what_was_made(root):
    manifest = read_manifest(str(root), "digits-lt")
    assert manifest.name == "digits_lt"
    assert manifest.counts["train"] == (174, 104, 62, 37, 22, 13, 8, 4, 2, 2)
    assert manifest.num_images("eval") == 1797
    assert (manifest.num_classes, manifest.image_size, manifest.channels) == (10, 8, 1)
    assert len(manifest.groups) == 10


def test_manifest_survives_its_json(root):
    manifest = read_manifest(str(root), "digits_lt")
    assert parse_manifest(manifest.to_json()) == manifest


def test_fingerprint_changes_with_any_field(root):
    manifest = read_manifest(str(root), "digits_lt")
    assert len(manifest.fingerprint) == 16
    others = {
        replace(manifest, shards_sha256="0" * 64).fingerprint,
        replace(manifest, source="elsewhere").fingerprint,
        replace(manifest, image_size=9).fingerprint,
    }
    assert len(others | {manifest.fingerprint}) == 4


def test_names_take_dash_and_underscore():
    assert dataset_folder("s3://bucket/x/", "cifar10-lt") == "s3://bucket/x/cifar10_lt"
    assert dataset_folder("/", "a_b") == "/a_b"


@pytest.mark.parametrize("name", ["imagenet-lt", "cifar10_lt", "cub200"])
def test_missing_data_set_names_its_command(root, name):
    dashed = name.replace("_", "-")
    with pytest.raises(ValueError, match=rf"data_prep {dashed} --source DIR --out {root}"):
        read_manifest(str(root), name)


def test_root_that_cannot_be_opened_is_named():
    with pytest.raises(ValueError, match=r"data.root \(nowhere://x\) cannot be opened"):
        read_manifest("nowhere://x", "digits_lt")


def test_folder_without_manifest_is_unfinished(root):
    (root / "digits_lt/dataset.json").unlink()
    with pytest.raises(
        ValueError, match=f"data.root .*no dataset.json, so it is unf.*{REMAKE}"
    ):
        read_manifest(str(root), "digits_lt")


@pytest.mark.parametrize("keep", [0, 1, 50, -3])
def test_manifest_cut_short_is_named(root, keep):
    file = root / "digits_lt/dataset.json"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"dataset.json is cut short or not JSON.*{REMAKE}"):
        read_manifest(str(root), "digits_lt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2, newer than the 1"),
        ({"format_version": None}, "has no format_version"),
        ({"class_names": ["0", "1"]}, "counts of split"),
        ({"counts": {"eval": [1] * 10}}, "no train split"),
        ({"counts": 3}, "not as data_prep writes it"),
        ({"channels": 4}, "4 channels"),
        ({"groups": ["much"] * 10}, "groups are not one of many, medium, few"),
    ],
)
def test_manifest_with_wrong_content_is_refused(root, change, message):
    file = root / "digits_lt/dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=f"{message}.*{REMAKE}"):
        read_manifest(str(root), "digits_lt")


def test_manifest_that_lacks_a_field_is_refused(root):
    file = root / "digits_lt/dataset.json"
    content = json.loads(file.read_text())
    del content["groups"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lacks 'groups'"):
        read_manifest(str(root), "digits_lt")


@pytest.mark.parametrize("file", ["shards.parquet", "index.parquet"])
def test_missing_table_is_named(root, file):
    (root / "digits_lt" / file).unlink()
    with pytest.raises(ValueError, match=f"{file} is missing.*{REMAKE}"):
        read_manifest(str(root), "digits_lt")


def test_table_of_another_data_set_is_refused(root):
    file = root / "digits_lt/shards.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(ValueError, match=f"shards.parquet does not have the sha256.*{REMAKE}"):
        read_manifest(str(root), "digits_lt")


@pytest.mark.parametrize("file", ["shards.parquet", "index.parquet"])
def test_table_cut_short_is_refused(root, file):
    path = root / "digits_lt" / file
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"data.root .*{REMAKE}"):
        read_manifest(str(root), "digits_lt")


def test_tar_of_another_size_is_named(root):
    tar = root / "digits_lt/train/000001.tar"
    size = tar.stat().st_size
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(
        ValueError, match=f"train/000001.tar has {size - 512} bytes, .* {size} bytes.*{REMAKE}"
    ):
        read_manifest(str(root), "digits_lt")
    tar.unlink()
    with pytest.raises(ValueError, match=f"train/000001.tar is missing.*{REMAKE}"):
        read_manifest(str(root), "digits_lt")


@pytest.mark.parametrize("label", [-1, 10])
def test_label_outside_the_classes_is_refused(root, label):
    def change(i, columns):
        if i == 2:
            columns["label"][5] = label
        return columns

    edit_index(root / "digits_lt", change)
    with pytest.raises(ValueError, match=rf"label {label} in train/000002.tar, outside 0..9"):
        read_manifest(str(root), "digits_lt")


def test_index_with_other_rows_than_the_shards_is_refused(root):
    edit_index(root / "digits_lt", lambda i, columns: {k: v[1:] for k, v in columns.items()})
    with pytest.raises(ValueError, match="99 samples of train/000000.tar, shards.parquet 100"):
        read_manifest(str(root), "digits_lt")


def test_index_with_other_labels_is_refused(root):
    def change(i, columns):
        columns["label"][0] = (columns["label"][0] + 1) % 10
        return columns

    edit_index(root / "digits_lt", change)
    with pytest.raises(ValueError, match=f"counts train images per class.*{REMAKE}"):
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


def test_shard_of_one_class_is_warned_of(root):
    edit_index(root / "digits_lt", lambda i, c: c | {"label": [3] * len(c["label"])})
    with pytest.warns(UserWarning, match="23 shards .*single class each .train/000000.tar"):
        read_manifest(str(root), "digits_lt")


def test_shards_of_ours_are_not_warned_of(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_manifest(str(root), "digits_lt")


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
    assert not list((tmp_path / "cache").glob("*.partial"))


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
    text = pickle.dumps(index)
    assert len(text) < 1000
    np.testing.assert_array_equal(pickle.loads(text).labels, index.labels)


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


def test_root_may_be_any_url(root):
    memory = fsspec.filesystem("memory")
    memory.put(str(root / "digits_lt"), "/manifest-test/digits_lt", recursive=True)
    try:
        url = "memory://manifest-test"
        assert read_manifest(url, "digits_lt") == read_manifest(str(root), "digits_lt")
        assert open_index(url, "digits_lt", "train").num_samples == 428
        assert read_manifest(f"file://{root}", "digits_lt").name == "digits_lt"
    finally:
        memory.rm("/manifest-test", recursive=True)
