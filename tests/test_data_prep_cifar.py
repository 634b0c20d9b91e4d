import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from source_tools import pixels_of

from data_prep.options import Options
from data_prep.readers.cifar import CIFAR10, CIFAR100, read_cifar
from data_prep.readers.pickles import load_batch

PER_FILE = {"cifar10": 40, "cifar100": 1000}
SHARED = Path(__file__).parents[2] / "shared" / "data"


def python2_batch(labels, pixels, label_keys):
    """The bytes of a CIFAR batch as Python 2 pickled it, opcode by opcode."""

    def string(text):
        return b"U" + bytes([len(text)]) + text.encode()

    def listing(values):
        return b"](" + b"".join(b"K" + bytes([v]) for v in values) + b"e"

    shape = b"M" + struct.pack("<H", len(labels)) + b"M\x00\x0c\x86"
    minus_one = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + 2 * minus_one + b"K\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + dtype
        + b"\x89T"
        + struct.pack("<i", pixels.nbytes)
        + pixels.tobytes()
        + b"tb"
    )
    body = b"".join(string(k) + listing(labels) for k in label_keys)
    return b"\x80\x02}(" + body + string("data") + array + b"u."


def fake_parts(variant, num_files, per_file):
    generator = np.random.default_rng(0)
    for _ in range(num_files):
        labels = np.arange(per_file) % variant.num_classes
        generator.shuffle(labels)
        yield labels, generator.integers(0, 256, (per_file, 3072), dtype=np.uint8)


def make_folder(folder, variant, is_python=True, per_file=None):
    """A small folder in the published format, of random images."""
    folder.mkdir(parents=True, exist_ok=True)
    files = list(variant.python_files if is_python else variant.binary_files)
    per_file = per_file or PER_FILE[variant.title.lower().replace("-", "")]
    parts = list(fake_parts(variant, len(files) - 1, per_file))
    keys = [variant.label_key] + (["coarse_labels"] if variant is CIFAR100 else [])
    names = [f"class{c}" for c in range(variant.num_classes)]
    for file, (labels, pixels) in zip(files[:-1], parts, strict=True):
        if is_python:
            (folder / file).write_bytes(python2_batch(labels, pixels, keys))
        else:
            head = np.zeros((per_file, variant.label_bytes), np.uint8)
            head[:, -1] = labels
            (folder / file).write_bytes(np.hstack([head, pixels]).tobytes())
    if is_python:
        meta = {variant.names_key.encode(): [n.encode() for n in names]}
        (folder / files[-1]).write_bytes(pickle.dumps(meta, protocol=2))
    else:
        (folder / files[-1]).write_text("\n".join(names) + "\n\n")
    return parts


def read(variant, folder, imbalance=None, allow_changed=True):
    name = "cifar100" if variant is CIFAR100 else "cifar10"
    name += "" if imbalance is None else "_lt"
    options = Options(source=str(folder), imbalance=imbalance, allow_changed=allow_changed)
    return read_cifar(name, options)


@pytest.mark.parametrize("is_python", [True, False], ids=["python", "binary"])
@pytest.mark.parametrize("variant", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
def test_both_versions_give_the_images_in_order(tmp_path, variant, is_python):
    parts = make_folder(tmp_path, variant, is_python)
    source = read(variant, tmp_path)
    assert len(source.class_names) == variant.num_classes
    assert source.class_names[3] == "class3"
    pixels = np.concatenate([p for _, p in parts[:-1]])
    labels = np.concatenate([y for y, _ in parts[:-1]])
    for split in ("train", "eval"):
        np.testing.assert_array_equal(source.splits[split].labels, labels)
        np.testing.assert_array_equal(
            pixels_of(source.splits[split]), pixels.reshape(-1, 3, 32, 32)
        )
    np.testing.assert_array_equal(source.splits["test"].labels, parts[-1][0])
    np.testing.assert_array_equal(
        source.splits["test"].image(5), parts[-1][1][5].reshape(3, 32, 32).transpose(1, 2, 0)
    )


def test_long_tail_is_drawn_from_the_official_order(tmp_path):
    make_folder(tmp_path, CIFAR10)
    source = read(CIFAR10, tmp_path, imbalance=0.1)
    train, full = source.splits["train"], source.splits["eval"]
    assert np.bincount(train.labels).tolist() == [20, 15, 11, 9, 7, 5, 4, 3, 2, 2]
    generator, expected = np.random.RandomState(0), []
    for c, n in enumerate(np.bincount(train.labels)):
        rows = np.where(full.labels == c)[0]
        generator.shuffle(rows)
        expected += [f"train-{i:06d}" for i in rows[:n]]
    assert list(train.keys) == expected
    np.testing.assert_array_equal(train.image(30), full.image(int(expected[30][6:])))


def test_changed_files_are_named_and_need_the_flag(tmp_path):
    make_folder(tmp_path, CIFAR10)
    with pytest.raises(ValueError, match="data_batch_1.*batches.meta differ.*--allow-changed"):
        read(CIFAR10, tmp_path, allow_changed=False)
    source = read(CIFAR10, tmp_path)
    assert "test_batch" in source.made
    assert any("test_batch is not the published file" in note for note in source.notes)


def test_binary_version_says_that_it_is_not_checked(tmp_path):
    make_folder(tmp_path, CIFAR10, is_python=False)
    source = read(CIFAR10, tmp_path, allow_changed=False)
    assert "not checked" in source.notes[0]


def test_the_folder_above_will_do(tmp_path):
    make_folder(tmp_path / "cifar-100-python", CIFAR100)
    assert len(read(CIFAR100, tmp_path).splits["train"].labels) == 1000


def test_folder_of_another_data_set_is_refused(tmp_path):
    make_folder(tmp_path, CIFAR100)
    with pytest.raises(
        ValueError, match=f"--source .{tmp_path}. is not CIFAR-10: .*data_batch"
    ):
        read(CIFAR10, tmp_path)


def test_missing_file_is_named(tmp_path):
    make_folder(tmp_path, CIFAR10)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(ValueError, match="lacks data_batch_4 of CIFAR-10"):
        read(CIFAR10, tmp_path)


@pytest.mark.parametrize("is_python", [True, False], ids=["python", "binary"])
def test_file_cut_short_is_named(tmp_path, is_python):
    make_folder(tmp_path, CIFAR10, is_python)
    file = tmp_path / ("data_batch_2" if is_python else "data_batch_2.bin")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match=f"{file.name} is (not a CIFAR batch|cut short)"):
        read(CIFAR10, tmp_path)


@pytest.mark.parametrize("is_python", [True, False], ids=["python", "binary"])
def test_label_outside_the_classes_is_named(tmp_path, is_python):
    make_folder(tmp_path, CIFAR10, is_python)
    labels, pixels = np.full(40, 3), np.zeros((40, 3072), np.uint8)
    labels[7] = 10
    if is_python:
        (tmp_path / "data_batch_3").write_bytes(python2_batch(labels, pixels, ["labels"]))
    else:
        records = np.hstack([labels.astype(np.uint8)[:, None], pixels])
        (tmp_path / "data_batch_3.bin").write_bytes(records.tobytes())
    with pytest.raises(ValueError, match="data_batch_3.* has label 10, outside 0..9"):
        read(CIFAR10, tmp_path)


def test_meta_with_other_names_is_refused(tmp_path):
    make_folder(tmp_path, CIFAR10)
    meta = pickle.dumps({"label_names": ["a", "b"]}, protocol=2)
    (tmp_path / "batches.meta").write_bytes(meta)
    with pytest.raises(ValueError, match="batches.meta names 2 classes, not 10"):
        read(CIFAR10, tmp_path)


class RunsACommand:
    def __reduce__(self):
        return subprocess.check_call, (["touch", "/dev/null"],)


class ReadsAnObject:
    def __reduce__(self):
        return np.dtype, ("O",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            pickle.dumps({"data": RunsACommand()}),
            "names subprocess.check_call, which is refused",
        ),
        (pickle.dumps(eval), "names builtins.eval, which is refused"),
        (b"cbuiltins\ngetattr\n(c__builtin__\nobject\nU\x01atR.", "which is refused"),
        (pickle.dumps({"data": ReadsAnObject()}), "array of 'O'"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "wants the encoding 'rot13'"),
        (pickle.dumps([1, 2]), "holds a list"),
        (b"Nr\xff\xff\xff\x07.", "fills place 134,217,727 after 1 steps"),  # a gigabyte of it
        (b"", "pickle exhausted|EOFError"),
        (b"\x80\x02garbage", "UnpicklingError|KeyError|IndexError|newline"),
    ],
)
def test_pickles_run_nothing(content, message):
    with pytest.raises(ValueError, match=message):
        load_batch(content)


def test_pickles_of_today_are_read_too():
    """A folder that somebody pickled anew, with Python 3 and this numpy."""
    batch = {"labels": [1, 2], b"data": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    again = load_batch(pickle.dumps(batch, protocol=2))
    assert again["labels"] == [1, 2]
    np.testing.assert_array_equal(again["data"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.slow
@pytest.mark.data
def test_official_cifar10_gives_the_subset_of_the_literature(tmp_path):
    tool = SHARED / "tools" / "rebuild_official_cifar10.py"
    if not tool.exists():
        pytest.skip("the real CIFAR-10 (shared/data) is not beside this checkout")
    subprocess.run(
        [sys.executable, tool, SHARED / "cifar10", tmp_path], check=True, capture_output=True
    )
    with pytest.raises(ValueError) as caught:
        read(CIFAR10, tmp_path, allow_changed=False)
    assert re.search(r": test_batch, batches.meta differ", str(caught.value))
    source = read(CIFAR10, tmp_path, imbalance=0.01)
    batches = [load_batch((tmp_path / f"data_batch_{i}").read_bytes()) for i in range(1, 6)]
    labels = np.concatenate([b["labels"] for b in batches])
    data = np.concatenate([b["data"] for b in batches])
    generator, expected = np.random.RandomState(0), []
    for c in range(10):
        rows = np.where(labels == c)[0]
        generator.shuffle(rows)
        expected.extend(rows[: int(5000 * 0.01 ** (c / 9))])
    assert len(expected) == 12_406
    train = source.splits["train"]
    assert [int(key.removeprefix("train-")) for key in train.keys] == expected
    np.testing.assert_array_equal(train.labels, labels[expected])
    np.testing.assert_array_equal(pixels_of(train).reshape(-1, 3072), data[expected])
    assert source.class_names[:2] == ("airplane", "automobile")
