"""An index in parts is the index, and damage to it is found where a part is first read."""

import dataclasses
import hashlib
import json
import pickle
import shutil
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from shard_tools import contents, make_digits

from cbdm_scale.data import index_files, parted
from cbdm_scale.data.index import MappedIndex, open_index
from cbdm_scale.data.index_files import TableWriter, part_name
from cbdm_scale.data.loader import DataConfig, PlannedImages
from cbdm_scale.data.manifest import parse_manifest, read_manifest
from cbdm_scale.data.parted import PartedIndex
from cbdm_scale.data.plan import SamplePlan
from cbdm_scale.data.resample import ResampledPlan
from cbdm_scale.data.shards import BadSample, ShardReader
from data_prep.checking.verify import verify

COLUMNS = "labels", "shard_of", "offsets", "lengths", "crc32"
SIZES = {"train": 428, "eval": 1797}
REMAKE = "make the data set again with python -m data_prep digits-lt"


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
def made(tmp_path_factory):
    """112 shards of 20 digits, in one file and in parts of four shards: 6 train, 23 eval."""
    root = tmp_path_factory.mktemp("shards")
    make_digits(root / "one", samples_per_shard=20)
    shutil.copytree(root / "one", root / "parts")
    split_tables(root / "parts/digits_lt")
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    """A copy that a test may damage, and an index cache of its own."""
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made / "parts", tmp_path / "shards")
    return tmp_path / "shards"


def open_parts(root, split="train"):
    index = open_index(str(root), "digits_lt", split)
    assert isinstance(index, PartedIndex)
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


# ----------------------------------------------------------------------------
# On disk.


def test_parts_have_few_row_groups_one_a_shard_of_one_split(made):
    folder = made / "parts/digits_lt"
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
    make_digits(tmp_path / "one")
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


def test_the_manifest_agrees_and_nothing_warns(made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manifest = read_manifest(str(made / "parts"), "digits_lt")
    text = (made / "one/digits_lt/dataset.json").read_bytes()
    digest = parse_manifest(text).shards_sha256
    assert dataclasses.replace(manifest, shards_sha256=digest) == parse_manifest(text)


# ----------------------------------------------------------------------------
# The index.


@pytest.mark.parametrize("split", ["train", "eval"])
def test_an_index_in_parts_is_the_index(made, root, split):
    index, whole = open_parts(root, split), open_index(str(made / "one"), "digits_lt", split)
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


def test_rows_that_are_not_there_are_an_error(root):
    index = open_parts(root)
    for row in (-1, 428):
        for rows in (row, np.array([row])):
            with pytest.raises(IndexError):
                index.labels[rows]


def test_only_the_parts_that_are_asked_for_are_read(root, tmp_path):
    index = open_parts(root)
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    index.labels[np.array([5, 79, 400])]  # shards 0, 3 and 20
    made = sorted(p.name for p in (tmp_path / "cache").rglob("*.arrow"))
    assert made == ["00000.arrow", "00005.arrow"]
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_parts_of_this_node_are_not_fetched_again(root):
    expected = open_parts(root).labels[np.arange(428)]
    shutil.rmtree(root / "digits_lt/index.parquet")
    (root / "digits_lt/index.parquet").mkdir()
    index = PartedIndex(str(root), "digits_lt", "train", open_path(root))
    np.testing.assert_array_equal(index.labels[np.arange(428)], expected)


def open_path(root):
    from cbdm_scale.data.index import cache_folder

    (path,) = cache_folder().glob("digits_lt-*-train.shards")
    return str(path)


def test_a_process_keeps_a_limited_number_of_parts_open(root, monkeypatch):
    monkeypatch.setattr(parted, "PARTS_OPEN", 3)
    index = open_parts(root)
    for row in np.random.default_rng(0).integers(0, 428, 200):
        index.labels[row]
        assert len(index._open) <= 3


def test_a_node_keeps_a_limited_number_of_bytes_and_goes_on(root, tmp_path, monkeypatch):
    expected = open_parts(root, "eval").labels[np.arange(1797)]
    (folder,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    size = max(p.stat().st_size for p in folder.iterdir())
    monkeypatch.setattr(parted, "CACHE_BYTES", 4 * size)
    monkeypatch.setattr(parted, "PARTS_OPEN", 1)
    shutil.rmtree(folder)
    index = open_parts(root, "eval")
    np.testing.assert_array_equal(index.labels[np.arange(1797)], expected)
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 4 * size
    assert (folder / "00028.arrow").exists()  # the newest stays
    np.testing.assert_array_equal(index.labels[np.arange(1797)], expected)


@pytest.mark.parametrize("keep", [0, 100, -50])
def test_a_damaged_copy_of_a_part_is_made_again(root, tmp_path, keep):
    expected = open_parts(root).labels[np.arange(428)]
    for path in (tmp_path / "cache").rglob("*.arrow"):
        raw = path.read_bytes()[:keep]
        path.unlink()
        path.write_bytes(raw)
    np.testing.assert_array_equal(open_parts(root).labels[np.arange(428)], expected)


def test_a_damaged_copy_of_the_shards_is_made_again(root):
    expected = open_parts(root).labels[np.arange(428)]
    with open(open_path(root), "r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(open_parts(root).labels[np.arange(428)], expected)


def test_it_pickles_as_its_paths(root):
    index = open_parts(root, "eval")
    index.labels[np.arange(1797)]
    text = pickle.dumps(index)
    assert len(text) < 1000
    np.testing.assert_array_equal(
        pickle.loads(text).labels[np.arange(1797)], index.labels[np.arange(1797)]
    )


def test_batches_are_those_of_one_file(made, root):
    """Streams, plain and resampled, the reader and damage, on both layouts."""
    batches = []
    for where in (root, made / "one"):
        index = open_index(str(where), "digits_lt", "train")
        reader = ShardReader(str(where), "digits_lt", index, pauses=())
        for plan in (
            SamplePlan(index.shard_sizes, 3, num_streams=4),
            ResampledPlan(index, 3, 0.5, 0.1),
        ):
            images = pickle.loads(
                pickle.dumps(PlannedImages(reader, plan, DataConfig().augmentation(3)))
            )
            batches.append(images[torch.arange(1000, 1200)])
    for a, b in ((batches[0], batches[2]), (batches[1], batches[3])):
        assert torch.equal(a.x0, b.x0) and torch.equal(a.y, b.y) and a.keys == b.keys


def test_a_tar_that_is_gone_is_found_on_reading(root):
    (root / "digits_lt/train/000002.tar").unlink()
    read_manifest(str(root), "digits_lt")  # looks at some tars only
    index = open_parts(root)
    reader = ShardReader(str(root), "digits_lt", index, pauses=())
    reader.read(39)
    with pytest.raises(BadSample, match=r"train/000002.tar: the shard is missing"):
        reader.read(40)


# ----------------------------------------------------------------------------
# Damage.


def test_verify_reads_every_part(root):
    assert verify(str(root), "digits_lt").wrong == []
    flip_bits(root)
    (root / "digits_lt" / part_name(3)).unlink()
    wrong = "\n".join(verify(str(root), "digits_lt").wrong)
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
        (lambda root: (root / "digits_lt" / part_name(1)).unlink(), "00001.parquet is missing"),
        (lambda root: (root / "digits_lt" / part_name(1)).write_bytes(b"PAR1"), "is damaged"),
        (
            lambda root: rewrite_part(root, 1, lambda i, c: {k: v[1:] for k, v in c.items()}),
            "4 row groups of 76 rows",
        ),
        (
            lambda root: rewrite_part(
                root, 1, lambda i, c: c | {"shard": ["train/000009.tar"] * len(c["shard"])}
            ),
            "row group 0 is not train/000004.tar",
        ),
        (
            lambda root: rewrite_part(root, 1, lambda i, c: c | {"label": [0] * 20}),
            "the labels of train/000004.tar are others",
        ),
    ],
)
def test_a_damaged_part_is_named_when_it_is_first_read(root, harm, message):
    harm(root)
    index = open_parts(root)
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
def test_what_shards_parquet_says_is_checked_at_the_start(root, column, row, value, message):
    def change(columns):
        columns[column][row] = value
        return columns

    rewrite_shards(root, change)
    with pytest.raises(ValueError, match=f"{message}.*Make it again: python -m data_prep"):
        read_manifest(str(root), "digits_lt")


@pytest.mark.parametrize("part", [0, 28])
def test_a_missing_end_of_the_index_is_found_at_the_start(root, part):
    (root / "digits_lt" / part_name(part)).unlink()
    with pytest.raises(ValueError, match=f"part-{part:05d}.parquet is missing"):
        read_manifest(str(root), "digits_lt")


def test_shards_of_one_class_are_warned_of(root):
    rewrite_shards(root, lambda columns: columns | {"label_max": columns["label_min"]})
    with pytest.warns(UserWarning, match="110 shards .*single class each .train/000000.tar"):
        read_manifest(str(root), "digits_lt")
