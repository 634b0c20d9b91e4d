import hashlib
import json
import shutil
import warnings
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_tools import copy_digits, edit_index

from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import dataset_folder, parse_manifest, read_manifest

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


def test_a_name_that_is_not_there_is_answered_with_those_that_are(root):
    with pytest.raises(ValueError, match=r"no data set digit: .* There: digits_lt\. Make it"):
        read_manifest(str(root), "digit")


def test_names_take_dash_and_underscore():
    assert dataset_folder("s3://bucket/x/", "cifar10-lt") == "s3://bucket/x/cifar10_lt"
    assert dataset_folder("/", "a_b") == "/a_b"


@pytest.mark.parametrize("name", ["imagenet-lt", "cifar10_lt", "cub200"])
def test_missing_data_set_names_its_command(root, name):
    dashed = name.replace("_", "-")
    with pytest.raises(ValueError, match=rf"prepare {dashed} --source DIR .*--out {root}"):
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
        ({"groups": ["many"] * 9}, "groups are not 10, one a class"),
        ({"groups": ["much"] * 10}, "groups takes many or medium or few"),
        ({"image_size": float("inf")}, "not as data_prep writes it"),
        ({"name": "../elsewhere"}, "has the name '../elsewhere', which is not of letters"),
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
    with pytest.raises(ValueError, match="is not whole: .* 'groups'"):
        read_manifest(str(root), "digits_lt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(["samples"]), "lacks a column samples of int64"),
        (lambda t: t.set_column(0, "file", t["bytes"]), "lacks a column file of string"),
        (lambda t: t.set_column(0, "file", pa.nulls(len(t), pa.string())), "file has holes"),
    ],
)
def test_shards_parquet_with_other_columns_is_refused(root, change, message):
    """Its hash agrees: somebody made both."""
    file, about = root / "digits_lt/shards.parquet", root / "digits_lt/dataset.json"
    pq.write_table(change(pq.read_table(file)), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    about.write_text(json.dumps(json.loads(about.read_text()) | {"shards_sha256": digest}))
    with pytest.raises(ValueError, match=f"shards.parquet cannot be read .*{message}"):
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


def test_shard_of_one_class_is_warned_of(root):
    edit_index(root / "digits_lt", lambda i, c: c | {"label": [3] * len(c["label"])})
    with pytest.warns(UserWarning, match="23 shards .*single class each .train/000000.tar"):
        read_manifest(str(root), "digits_lt")


def test_shards_of_ours_are_not_warned_of(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_manifest(str(root), "digits_lt")


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
