"""CUB-200-2011: its own split, its own classes, and the square around the bird."""

import tarfile

import pytest
from image_tools import SHARED, counts, jpeg, put
from PIL import Image

from data_prep.options import Options
from data_prep.readers.cub import read_cub200

BIRDS = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
GREEN = (0, 200, 0)


def make_cub(folder, per_class=4, classes=(1, 2), images=True):
    """Two of three classes have images; the last of each class is for the test."""
    names, labels = [], []
    for c in classes:
        for j in range(per_class):
            names.append(f"{BIRDS[c - 1]}/{BIRDS[c - 1][4:]}_{j:04d}_{c}.jpg")
            labels.append(c)
    n = len(names)
    tables = {
        "classes": [(i + 1, bird) for i, bird in enumerate(BIRDS)],
        "images": list(enumerate(names, 1)),
        "image_class_labels": list(enumerate(labels, 1)),
        "train_test_split": [(i, int(i % per_class != 0)) for i in range(1, n + 1)],
        "bounding_boxes": [(i, "20.0 4.0 16.0 12.0") for i in range(1, n + 1)],
    }
    for table, rows in tables.items():
        text = "".join(f"{i} {value}\n" for i, value in rows)
        put(folder / f"{table}.txt", text.encode())
    for name in names if images else ():
        put(folder / "images" / name, jpeg(GREEN, (60, 40)))
    return folder


def read(folder, **options):
    options = {"source": str(folder), "out": str(folder / "out")} | options
    return read_cub200("cub200", Options(**options))


def test_the_official_split_and_names(tmp_path):
    source = read(make_cub(tmp_path / "CUB_200_2011"))
    assert source.class_names == ("Black_footed_Albatross", "Laysan_Albatross")
    assert counts(source) == [3, 3] == counts(source, "eval")
    assert counts(source, "test") == [1, 1]
    assert source.splits["test"].keys[0].endswith("Black_footed_Albatross_0003_1")
    assert source.splits["train"].image(0).shape == (128, 128, 3)
    notes = " | ".join(source.notes)
    assert "1 of 3 classes have no image in images.txt and are left out (003.Sooty" in notes
    assert "names 8 images, 6 of them for training; published are 11,788 and 5,994" in notes


def test_the_folder_above_will_do(tmp_path):
    make_cub(tmp_path / "CUB_200_2011")
    assert read(tmp_path, resolution=32).image_size == 32


def test_the_bounding_box_is_what_is_seen(tmp_path):
    make_cub(tmp_path)
    picture = Image.new("RGB", (60, 40), GREEN)
    picture.paste((250, 0, 0), (20, 2, 36, 18))  # the square around 20, 4, 16 x 12
    for path in (tmp_path / "images").rglob("*.jpg"):
        picture.save(path, quality=100, subsampling=0)
    inside = read(tmp_path, bounding_box=True, resolution=8)
    assert inside.splits["train"].image(0)[..., 0].min() > 240
    assert "bounding box" in inside.made
    whole = read(tmp_path, resolution=8)
    assert whole.splits["train"].image(0)[..., 1].max() > 150
    assert "bounding box" not in whole.made


def test_boxes_stay_with_their_images_when_some_are_missing(tmp_path):
    make_cub(tmp_path)
    boxes = "".join(f"{i} {i}.0 2.0 3.0 4.0\n" for i in range(1, 9))
    put(tmp_path / "bounding_boxes.txt", boxes.encode())
    sorted((tmp_path / "images").rglob("*.jpg"))[1].unlink()
    source = read(tmp_path, bounding_box=True, allow_missing=1)
    train = source.splits["train"].image
    assert [box[0] for box in train.boxes] == [1.0, 3.0, 5.0, 6.0, 7.0]
    assert [path[-10:-4] for path in train.paths] == [
        "0000_1", "0002_1", "0000_2", "0001_2", "0002_2",
    ]  # fmt: skip


def test_missing_images_of_a_whole_class_are_an_error(tmp_path):
    make_cub(tmp_path)
    for path in (tmp_path / "images" / BIRDS[1]).iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no training image of 1 of 2 classes: Laysan"):
        read(tmp_path, allow_missing=4)


def test_files_that_do_not_belong_together_are_told(tmp_path):
    with pytest.raises(ValueError, match="is not CUB-200-2011: it has no images.txt"):
        read(tmp_path)
    make_cub(tmp_path)
    wrong = {
        "image_class_labels": (b"1 1\n2 1\n", "image 3 of images.txt .* is not in all of them"),
        "train_test_split": (b"1 1\n1 0\n", r"line 2 is '1 0', not a new id and a value"),
        "bounding_boxes": (
            b"".join(b"%d 1 2\n" % i for i in range(1, 9)),
            "image 1 has '1 2', not x, y, width and height",
        ),
        "classes": (b"1 001.A\n3 003.B\n", "image 5 has class 2, which classes.txt does not"),
    }
    for table, (text, message) in wrong.items():
        make_cub(tmp_path)
        put(tmp_path / f"{table}.txt", text)
        with pytest.raises(ValueError, match=message):
            read(tmp_path, bounding_box=True)
    make_cub(tmp_path)
    put(tmp_path / "train_test_split.txt", b"".join(b"%d 2\n" % i for i in range(1, 9)))
    with pytest.raises(ValueError, match="image 1 has '2', not 0 or 1"):
        read(tmp_path)


def unpack(name, folder):
    archive = SHARED / "cub" / name
    if not archive.exists():
        pytest.skip("the real CUB-200 (shared/data) is not beside this checkout")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


@pytest.mark.data
def test_real_birds(tmp_path):
    unpack("cub_subset.tar.gz", tmp_path)
    source = read(tmp_path, resolution=128, bounding_box=True)
    assert counts(source) == [3] * 12 and counts(source, "test") == [2] * 12
    for i in range(36):
        assert source.splits["train"].image(i).std() > 10


@pytest.mark.data
def test_the_full_metadata_with_few_of_the_images(tmp_path):
    unpack("cub_subset.tar.gz", tmp_path)
    unpack("cub_metadata_full.tar.gz", tmp_path)
    with pytest.raises(ValueError, match="lacks 11,728 images"):
        read(tmp_path)
    lines = (tmp_path / "out" / "cub200.missing.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 11_788 - 60
    with pytest.raises(ValueError, match="no training image of 188 of 200 classes: Bobolink"):
        read(tmp_path, allow_missing=11_728)
