"""verify: every kind of damage is found and named, and nothing else."""

import json
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from shard_tools import edit_index

from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from data_prep.__main__ import main
from data_prep.checking.verify import verify
from data_prep.readers.digits import read_digits_lt
from data_prep.writing.shards import write_dataset

TAR = "eval/000001.tar"


def few_digits(rows):
    """The digits with some rows of eval."""
    source = read_digits_lt()
    return replace(source, splits=source.splits | {"eval": source.splits["eval"].take(rows)})


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("verify")
    source = few_digits(np.arange(500))
    write_dataset(source, root / "digits_lt", samples_per_shard=100, seed=0, log=str)
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
    (root / "digits_lt/classifier.safetensors").write_bytes(save_classifier(net))
    return root


@pytest.fixture
def root(original, tmp_path):
    """A copy of the digits that may be damaged."""
    shutil.copytree(original / "digits_lt", tmp_path / "root/digits_lt")
    return tmp_path / "root"


def wrong(root):
    return verify(str(root), "digits_lt").wrong


def edit_tar(root, change, file=TAR):
    path = root / "digits_lt" / file
    raw = bytearray(path.read_bytes())
    change(raw)
    path.write_bytes(raw)


def members(root, file=TAR):
    with tarfile.open(root / "digits_lt" / file) as tar:
        return [(m.name, m.offset, m.offset_data) for m in tar]


def edit_json(root, change):
    path = root / "digits_lt/dataset.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def test_whole_data_set_is_fine(original, capsys):
    for where in (original, original / "digits_lt"):
        assert main(["verify", str(where)]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[-1].startswith("digits_lt: fine; 10 shards, 928 images, ")


def test_flipped_bit_of_an_image_is_named_by_its_sample(root, capsys):
    name, _, start = members(root)[21]
    edit_tar(root, lambda raw: raw.__setitem__(start + 40, raw[start + 40] ^ 4))
    found = wrong(root)
    assert len(found) == 2
    assert found[0] == f"{TAR}: does not have the sha256 that shards.parquet says"
    assert found[1].startswith(f"{TAR}: sample {name[:-4]}: does not decode")
    assert found[1].endswith("its image does not have the crc32 of index.parquet")
    assert main(["verify", str(root)]) == 1
    said = capsys.readouterr().out
    assert f"wrong: digits_lt/{TAR}: sample {name[:-4]}" in said
    assert "digits_lt: 2 things are wrong" in said


def test_changed_label_is_found_in_tar_index_and_counts(root):
    name, _, start = members(root)[20]
    was = int((root / "digits_lt" / TAR).read_bytes()[start : start + 1])
    edit_tar(root, lambda raw: raw.__setitem__(start, ord(str((was + 1) % 10))))
    found = "\n".join(wrong(root))
    label = f"sample {name[:-4]}: has label {(was + 1) % 10}, index.parquet says {was}"
    assert label in found
    assert f"dataset.json: class {was} has" in found
    edit_tar(root, lambda raw: raw.__setitem__(start, ord("x")))
    assert f"sample {name[:-4]}: has no label (b'x')" in "\n".join(wrong(root))


def test_damaged_header_cut_end_and_missing_tar_are_told(root):
    _, header, _ = members(root)[100]  # sample 50
    edit_tar(root, lambda raw: raw.__setitem__(header + 150, raw[header + 150] ^ 1))
    cut = members(root, "eval/000002.tar")[61][2] + 20  # inside an image
    edit_tar(root, lambda raw: raw.__delitem__(slice(cut, None)), "eval/000002.tar")
    (root / "digits_lt/eval/000003.tar").unlink()
    (root / "digits_lt/eval/000004.tar").write_bytes(b"no tar at all" * 100)
    found = wrong(root)
    for text in [
        f"{TAR}: its header at byte {header} is damaged",
        f"{TAR}: holds 50 samples, shards.parquet says 100",
        f"eval/000002.tar: has {cut} bytes, shards.parquet says",
        "eval/000002.tar: is cut short or no tar",
        "eval/000003.tar: is missing",
        "eval/000004.tar: is cut short or no tar",
        "eval/000004.tar: holds 0 samples",
    ]:
        assert any(line.startswith(text) for line in found), text
    gone = [line for line in found if "is in index.parquet and not in the tar" in line]
    assert len([line for line in gone if line.startswith(TAR)]) == 50


def test_wrong_index_is_told_row_by_row(root):
    def change(i, columns):
        if i == 6:
            columns["offset"][5] += 512
            columns["label"][6] = (columns["label"][6] + 1) % 10
            columns["crc32"][7] ^= 1
            columns["key"][8] = "other"
        return columns

    edit_index(root / "digits_lt", change)
    found = wrong(root)
    assert [line.partition(": ")[0] for line in found] == [TAR] * 5
    for text in ["index.parquet says", "has label", "crc32", "is not in index", "other: is in"]:
        assert any(text in line for line in found)


@pytest.mark.parametrize(
    ("file", "texts"),
    [
        ("dataset.json", ["dataset.json: is missing, so the data set is unfinished"]),
        ("shards.parquet", ["shards.parquet: is missing"]),
        ("index.parquet", ["index.parquet: is missing"]),
    ],
)
def test_missing_file_is_told_and_the_rest_is_read(root, file, texts):
    (root / "digits_lt" / file).unlink()
    assert wrong(root) == texts


@pytest.mark.parametrize("file", ["dataset.json", "shards.parquet", "index.parquet"])
def test_damaged_table_is_told_and_the_rest_is_read(root, file):
    path = root / "digits_lt" / file
    path.write_bytes(path.read_bytes()[:-100])
    (found,) = wrong(root)
    assert found.startswith(f"{file}: ")


def test_damaged_page_of_the_index_is_of_one_shard(root):
    path = root / "digits_lt/index.parquet"
    meta = pq.ParquetFile(path).metadata.row_group(6).column(2)
    raw = bytearray(path.read_bytes())
    raw[meta.data_page_offset + 60] ^= 1
    path.write_bytes(raw)
    (found,) = wrong(root)
    assert found.startswith(f"{TAR}: its rows of index.parquet cannot be read")


def test_claims_of_dataset_json_are_checked(root):
    def change(raw):
        raw["counts"]["train"][3] += 1
        raw["groups"][0] = "few"
        raw["shards_sha256"] = "0" * 64
        raw["name"] = "other"

    edit_json(root, change)
    found = wrong(root)
    for text in [
        "is of other, in a folder digits_lt",
        "its totals are not the sums",
        "class 3 has 38 train images, the tars 37",
        "class 0 is few, by its training images many",
        "has another sha256 than dataset.json says",
    ]:
        assert any(text in line for line in found), text
    assert len(found) == 5


def test_tar_that_no_table_knows_is_told(root):
    shutil.copy(root / "digits_lt" / TAR, root / "digits_lt/eval/000099.tar")
    assert wrong(root) == ["eval/000099.tar: is not in shards.parquet"]


def test_same_key_in_two_shards_is_told(root):
    first, second = TAR, "eval/000002.tar"
    name = members(root, first)[0][0].partition(".")[0].encode()

    def rename(raw):
        """The second shard's first sample takes the first's name, in headers and sums."""
        for _, offset, _ in members(root, second)[:2]:
            raw[offset : offset + len(name)] = name
            raw[offset + 148 : offset + 156] = b" " * 8
            total = sum(raw[offset : offset + 512])
            raw[offset + 148 : offset + 156] = f"{total:06o}\0 ".encode()

    edit_tar(root, rename, second)
    assert f"eval: 1 keys stand more than once, in {first}, {second}" in wrong(root)


@pytest.mark.parametrize(
    ("size", "text"), [(8, "classifier.safetensors is damaged"), (16, "is for 1 x 16 x 16")]
)
def test_classifier_is_loaded_and_must_fit(root, size, text):
    path = root / "digits_lt/classifier.safetensors"
    net = SmallClassifier(image_channels=1, image_size=size, num_classes=10)
    path.write_bytes(save_classifier(net)[: -1 if size == 8 else None])
    (found,) = wrong(root)
    assert text in found


@pytest.mark.parametrize(
    ("last", "text"), [("9", ""), ("ten", "it lacks 9 and has ten besides")]
)
def test_the_classes_of_the_classifier_are_those_of_the_data_set(root, last, text):
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
    data = save_classifier(net, (last, *"012345678"))
    (root / "digits_lt/classifier.safetensors").write_bytes(data)
    assert text in " ".join(wrong(root)) and len(wrong(root)) == bool(text)


def test_shards_of_one_class_and_no_classifier_are_warnings(tmp_path, capsys):
    source = few_digits(np.flatnonzero(read_digits_lt().splits["eval"].labels == 3))
    write_dataset(source, tmp_path / "digits_lt", samples_per_shard=100, seed=0, log=str)
    assert main(["verify", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "warning: digits_lt: 2 shards hold a single class each (eval/000000.tar" in said
    assert "classifier.safetensors is not there" in said


def test_root_without_a_data_set_is_an_error(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert "holds no data set" in capsys.readouterr().err
