"""An index in parts is the index."""

import dataclasses
import shutil
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from partitioned_tools import (
    COLUMNS,
    SIZES,
    open_parts,
    small_parts,
)
from process_tools import sent
from shard_tools import contents, copy_digits, make_digits

from cbdm_scale.data import index_files, partitioned_index
from cbdm_scale.data.augment import augmentation
from cbdm_scale.data.index import MappedIndex, open_index
from cbdm_scale.data.loader import PlannedImages
from cbdm_scale.data.manifest import parse_manifest, read_manifest
from cbdm_scale.data.options import DataConfig
from cbdm_scale.data.partitioned_index import PartitionedIndex
from cbdm_scale.data.plan import SamplePlan
from cbdm_scale.data.resample import ResampledPlan
from cbdm_scale.data.shards import BadSample, ShardReader
from cbdm_scale.formats.shards import real_split
from cbdm_scale.metrics.sources import SplitImages

# ----------------------------------------------------------------------------
# On disk.


def test_parts_have_few_row_groups_one_a_shard_of_one_split(parts_made):
    folder = parts_made / "parts/digits_lt"
    names = sorted(p.name for p in (folder / "index.parquet").iterdir())
    assert names == [f"part-{i:05d}.parquet" for i in range(6 + 23)]
    shards = pq.read_table(folder / "shards.parquet").to_pylist()
    place = 0
    for part, name in enumerate(names):
        with pq.ParquetFile(folder / "index.parquet" / name) as file:
            assert file.num_row_groups <= 4
            for i in range(file.num_row_groups):
                rows, shard = file.read_row_group(i), shards[place]
                assert set(rows["shard"].to_pylist()) == {shard["file"]}
                labels = rows["label"].to_pylist()
                assert (shard["part"], shard["samples"]) == (part, len(labels))
                assert (shard["label_min"], shard["label_max"]) == (min(labels), max(labels))
                place += 1
    assert place == len(shards) == 22 + 90


def test_data_prep_writes_parts_bounded_in_rows_too(tmp_path, monkeypatch):
    """23 shards of 100: the same images, and up to 250 rows a part."""
    copy_digits(tmp_path / "one")
    small_parts(monkeypatch)
    monkeypatch.setattr(index_files, "ROWS_A_PART", 250)
    make_digits(tmp_path / "parts")
    parts, one = contents(tmp_path / "parts"), contents(tmp_path / "one")
    tables = {f"digits_lt/{f}" for f in ("index.parquet", "shards.parquet", "dataset.json")}
    assert {n for n in one if parts.get(n) != one[n]} == tables
    shards = pq.read_table(tmp_path / "parts/digits_lt/shards.parquet")
    assert np.bincount(shards["part"].to_numpy()).tolist() == [2, 3] + [2] * 9
    index = open_parts(tmp_path / "parts")
    whole = open_index(str(tmp_path / "one"), "digits_lt", "train")
    np.testing.assert_array_equal(index.crc32[np.arange(428)], whole.crc32)


def test_the_manifest_agrees_and_nothing_warns(parts_made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manifest = read_manifest(str(parts_made / "parts"), "digits_lt")
    text = (parts_made / "one/digits_lt/dataset.json").read_bytes()
    digest = parse_manifest(text).shards_sha256
    assert dataclasses.replace(manifest, shards_sha256=digest) == parse_manifest(text)


# ----------------------------------------------------------------------------
# The index.


@pytest.mark.parametrize("split", ["train", "eval"])
def test_an_index_in_parts_is_the_index(parts_made, parts_root, split):
    index, whole = (
        open_parts(parts_root, split),
        open_index(str(parts_made / "one"), "digits_lt", split),
    )
    assert isinstance(whole, MappedIndex)
    n = SIZES[split]
    assert index.num_samples == whole.num_samples == n
    np.testing.assert_array_equal(index.shard_sizes, whole.shard_sizes)
    rows = np.random.default_rng(0).permutation(n)
    for column in COLUMNS:
        ours, theirs = getattr(index, column), getattr(whole, column)
        assert ours[rows].dtype == theirs.dtype
        np.testing.assert_array_equal(ours[rows], theirs[rows])
        assert [int(ours[i]) for i in (0, 20, n - 1)] == theirs[[0, 20, n - 1]].tolist()
        assert ours[rows[:0]].shape == (0,)
    assert [index.key(row) for row in range(n)] == [whole.key(row) for row in range(n)]
    assert index.keys(rows[:99]) == tuple(whole.key(row) for row in rows[:99])
    for shard in range(len(whole.shard_sizes)):
        assert index.shard_name(shard) == whole.shard_name(shard)


def test_a_set_with_its_index_in_parts_is_read_as_any_other(parts_made, parts_root):
    root = str(parts_made / "one")
    whole, manifest = open_index(root, "digits_lt", "eval"), read_manifest(root, "digits_lt")
    split = real_split(manifest, str(parts_root), "eval")
    images = SplitImages(str(parts_root), "digits_lt", "eval")
    assert images.labels.tolist() == split.labels.tolist() == whole.labels.tolist()
    assert split.keys == list(whole.keys(np.arange(1797)))
    assert np.array_equal(images.read([5])[0].transpose(1, 2, 0), split.image(5))


def test_rows_that_are_not_there_are_an_error(parts_root):
    index = open_parts(parts_root)
    for row in (-1, 428):
        for rows in (row, np.array([row])):
            with pytest.raises(IndexError):
                index.labels[rows]


def test_only_the_parts_that_are_asked_for_are_read(parts_root, tmp_path):
    index = open_parts(parts_root)
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    index.labels[np.array([5, 79, 400])]  # shards 0, 3 and 20
    parts_made = sorted(p.name for p in (tmp_path / "cache").rglob("*.arrow"))
    assert parts_made == ["00000.arrow", "00005.arrow"]
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_parts_of_this_node_are_not_fetched_again(parts_root):
    expected = open_parts(parts_root).labels[np.arange(428)]
    shutil.rmtree(parts_root / "digits_lt/index.parquet")
    (parts_root / "digits_lt/index.parquet").mkdir()
    index = PartitionedIndex(str(parts_root), "digits_lt", "train", open_path(parts_root))
    np.testing.assert_array_equal(index.labels[np.arange(428)], expected)


def open_path(root):
    from cbdm_scale.data.cache import cache_folder

    (path,) = cache_folder().glob("digits_lt-*-train.shards")
    return str(path)


def test_a_process_keeps_a_limited_number_of_parts_open(parts_root, monkeypatch):
    monkeypatch.setattr(partitioned_index, "PARTS_OPEN", 3)
    index = open_parts(parts_root)
    for row in np.random.default_rng(0).integers(0, 428, 200):
        index.labels[row]
        assert len(index._open) <= 3


def test_a_node_keeps_a_limited_number_of_bytes_and_goes_on(parts_root, tmp_path, monkeypatch):
    expected = open_parts(parts_root, "eval").labels[np.arange(1797)]
    (folder,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    size = max(p.stat().st_size for p in folder.iterdir())
    monkeypatch.setattr(partitioned_index, "CACHE_BYTES", 4 * size)
    monkeypatch.setattr(partitioned_index, "PARTS_OPEN", 1)
    shutil.rmtree(folder)
    index = open_parts(parts_root, "eval")
    np.testing.assert_array_equal(index.labels[np.arange(1797)], expected)
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 4 * size
    assert (folder / "00028.arrow").exists()  # the newest stays
    np.testing.assert_array_equal(index.labels[np.arange(1797)], expected)


@pytest.mark.parametrize("keep", [0, 100, -50])
def test_a_damaged_copy_of_a_part_is_made_again(parts_root, tmp_path, keep):
    expected = open_parts(parts_root).labels[np.arange(428)]
    for path in (tmp_path / "cache").rglob("*.arrow"):
        raw = path.read_bytes()[:keep]
        path.unlink()
        path.write_bytes(raw)
    np.testing.assert_array_equal(open_parts(parts_root).labels[np.arange(428)], expected)


def test_a_damaged_copy_of_the_shards_is_made_again(parts_root):
    expected = open_parts(parts_root).labels[np.arange(428)]
    with open(open_path(parts_root), "r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(open_parts(parts_root).labels[np.arange(428)], expected)


def test_it_pickles_as_its_paths(parts_root):
    index = open_parts(parts_root, "eval")
    index.labels[np.arange(1797)]
    rows = np.arange(1797)
    np.testing.assert_array_equal(sent(index, most=1000).labels[rows], index.labels[rows])


def test_batches_are_those_of_one_file(parts_made, parts_root):
    """Streams, plain and resampled, the reader and damage, on both layouts."""
    batches = []
    for where in (parts_root, parts_made / "one"):
        index = open_index(str(where), "digits_lt", "train")
        reader = ShardReader(str(where), "digits_lt", index, pauses=())
        for plan in (
            SamplePlan(index.shard_sizes, 3, num_streams=4),
            ResampledPlan(index, 3, 0.5, 0.1),
        ):
            images = sent(PlannedImages(reader, plan, augmentation(DataConfig(), 3)))
            batches.append(images[torch.arange(1000, 1200)])
    for a, b in ((batches[0], batches[2]), (batches[1], batches[3])):
        assert torch.equal(a.x0, b.x0) and torch.equal(a.y, b.y) and a.keys == b.keys


def test_a_tar_that_is_gone_is_found_on_reading(parts_root):
    (parts_root / "digits_lt/train/000002.tar").unlink()
    read_manifest(str(parts_root), "digits_lt")  # looks at some tars only
    index = open_parts(parts_root)
    reader = ShardReader(str(parts_root), "digits_lt", index, pauses=())
    reader.read(39)
    with pytest.raises(BadSample, match=r"train/000002.tar: the shard is missing"):
        reader.read(40)
