"""CelebA-5: the published lists line by line, and the clean variant by attributes."""

import tarfile

import numpy as np
import pytest
from image_tools import SHARED, counts, jpeg, put

from data_prep.options import Options
from data_prep.readers.celeba import CLASSES, read_celeba5

ATTRIBUTES = ("Young", "Bald", "Black_Hair", "Smiling", "Blond_Hair", "Brown_Hair", "Gray_Hair")
LISTS = {
    "train": [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (2, 3), (5, 4)],
    "val": [(6, 0), (1, 0)],
    "test": [(7, 1), (2, 1)],
}


def image(number):
    return f"{number:06d}.jpg"


def make_celeba(folder, lists=LISTS, images=range(1, 8), sub="img_align_celeba"):
    for split, rows in lists.items():
        text = "".join(f"/home/somebody/image64/{image(n)} {c}\n" for n, c in rows)
        put(folder / f"celebA_{split}_orig.txt", text.encode())
    for n in images:
        put(folder / sub / image(n), jpeg((30 * n, 0, 0), (178, 218)))
    return folder


def read(folder, **options):
    options = {"source": str(folder), "out": str(folder / "out")} | options
    return read_celeba5("celeba5", Options(**options))


def test_the_lists_are_followed_line_by_line(tmp_path):
    source = read(make_celeba(tmp_path))
    assert source.class_names == CLASSES
    assert CLASSES == ("Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
    assert {s: len(p.labels) for s, p in source.splits.items()} == {
        "train": 7, "eval": 7, "val": 2, "test": 2,
    }  # fmt: skip
    train = source.splits["train"]
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 3, 4]
    assert train.keys[:3] == ["000001", "000002", "000003"] and len(set(train.keys)) == 7
    assert train.image(3).shape == (64, 64, 3)
    assert [int(train.image(i)[0, 0, 0]) for i in (0, 4)] == pytest.approx([30, 150], abs=3)
    assert "the published lists; 64x64, centre crop as in ADM" in source.made


def test_it_says_how_many_stand_twice(tmp_path):
    notes = " | ".join(read(make_celeba(tmp_path)).notes)
    assert "images under two labels of one split: 1 (1 in train)" in notes
    assert "images that are in train and in val: 1 |" in notes
    assert "images that are in train and in test: 1 |" in notes
    assert "lines that stand twice in one list: 1 |" in notes
    assert "--clean" in notes
    tidy = {"train": LISTS["train"][:5], "val": [(6, 0)], "test": [(7, 1)]}
    assert "twice" not in " | ".join(read(make_celeba(tmp_path, tidy)).notes)


@pytest.mark.parametrize("sub", ["celeba/img_align_celeba", "Img/img_align_celeba"])
def test_images_are_found_where_others_unpack_them(tmp_path, sub):
    assert len(read(make_celeba(tmp_path, sub=sub)).splits["train"].labels) == 7


def test_missing_images_are_told_by_class(tmp_path):
    make_celeba(tmp_path, images=[1, 3, 4, 5, 6, 7])
    with pytest.raises(ValueError, match="lacks 1 images .* the first is 000002.jpg"):
        read(tmp_path)
    with pytest.raises(ValueError, match="no training image of 1 of 5 classes: Black_Hair"):
        read(tmp_path, allow_missing=1)
    put(tmp_path / "img_align_celeba" / image(2))
    (tmp_path / "img_align_celeba" / image(5)).unlink()
    lists = LISTS | {"train": [*LISTS["train"], (7, 4)]}
    source = read(make_celeba(tmp_path, lists, images=[1, 2, 3, 4, 6, 7]), allow_missing=3)
    assert counts(source) == [1, 1, 1, 2, 1] and source.allow_missing == 2
    assert any(n.startswith("train lacks 2 images (Gray_Hair 2 of 3)") for n in source.notes)
    assert source.made.endswith("; missing images left out: 1")


def make_attributes(folder, has, partition):
    """``has``: image number -> its attributes."""
    lines = [str(len(has)), " ".join(ATTRIBUTES) + " "]
    for n, mine in has.items():
        signs = ["1" if a in mine else "-1" for a in ATTRIBUTES]
        lines.append(f"{image(n)}  " + "  ".join(signs))
    put(folder / "list_attr_celeba.txt", "\n".join(lines).encode())
    text = "".join(f"{image(n)} {p}\n" for n, p in partition.items())
    put(folder / "list_eval_partition.txt", text.encode())


HAS = {
    1: ["Bald", "Smiling"], 2: ["Black_Hair"], 3: ["Blond_Hair", "Young"], 4: ["Brown_Hair"],
    5: ["Gray_Hair"], 6: ["Bald", "Gray_Hair"], 7: ["Young"], 8: ["Black_Hair"],
}  # fmt: skip


def test_clean_takes_images_with_exactly_one_of_the_five(tmp_path):
    make_celeba(tmp_path, {}, images=range(1, 9))
    make_attributes(tmp_path, HAS, {n: int(n == 8) for n in HAS})
    source = read(tmp_path, clean=True)
    assert source.splits["train"].keys == [f"{n:06d}" for n in range(1, 6)]
    assert source.splits["train"].labels.tolist() == [0, 1, 2, 3, 4]
    assert source.splits["val"].keys == ["000008"] and "test" not in source.splits
    assert "left out, since no image is in it: test" in source.notes
    assert "exactly one" in source.made


def test_damaged_lists_are_told_with_file_and_line(tmp_path):
    with pytest.raises(ValueError, match=r"has no celebA_train_orig.txt. Put it there"):
        read(tmp_path)
    make_celeba(tmp_path)
    with pytest.raises(ValueError, match="has no list_attr_celeba.txt"):
        read(tmp_path, clean=True)
    put(tmp_path / "celebA_val_orig.txt", b"a/000001.jpg 0\na/000002.jpg 5\n")
    with pytest.raises(ValueError, match=r"val_orig.txt\): line 2 is .* label of 0 to 4"):
        read(tmp_path)
    put(tmp_path / "celebA_val_orig.txt", b"")
    with pytest.raises(ValueError, match=r"val_orig.txt\) is empty"):
        read(tmp_path)
    make_attributes(tmp_path, HAS, {1: 0})
    with pytest.raises(ValueError, match="line 4 is not a file name of list_eval_partition"):
        read(tmp_path, clean=True)
    make_attributes(tmp_path, HAS, {1: 3})
    with pytest.raises(ValueError, match=r"line 1 is '000001.jpg 3', not .* 0, 1 or 2"):
        read(tmp_path, clean=True)
    put(tmp_path / "list_attr_celeba.txt", b"8\nYoung Bald\n000001.jpg 1 1\n")
    with pytest.raises(ValueError, match="does not name Black_Hair, Blond_Hair"):
        read(tmp_path, clean=True)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real files and lists; to be quick, 49 of 50 images are left empty."""
    archive = SHARED / "celeba5" / "celeba5_images.tar.gz"
    if not archive.exists():
        pytest.skip("the real CelebA-5 (shared/data) is not beside this checkout")
    folder = tmp_path_factory.mktemp("celeba")
    (folder / "celeba" / "img_align_celeba").mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.name.endswith(".jpg") or int(member.name[-10:-4]) % 50 == 0:
                tar.extract(member, folder, filter="data")
            else:
                (folder / member.name).touch()
    for path in (SHARED / "celeba5").glob("celebA_*_orig.txt"):
        put(folder / "celeba" / path.name, path.read_bytes())
    return folder / "celeba"


@pytest.mark.data
def test_the_published_lists_with_real_images(real):
    with pytest.raises(ValueError, match="lacks 110 images"):
        read(real)
    source = read(real, allow_missing=110)
    assert counts(source) == [424 - 110, 2423, 1499, 2078, 227]
    assert counts(source, "val") == [50] * 5 and counts(source, "test") == [100] * 5
    notes = " | ".join(source.notes)
    assert "under two labels of one split: 167 (145 in train, 9 in val, 13 in test)" in notes
    assert "in train and in test: 31 |" in notes and "in train and in val: 1 |" in notes
    assert "Bald 110 of 424" in notes
    train = source.splits["train"]
    whole = [
        i for i, key in enumerate(train.keys) if key[-2:] in ("00", "50") and len(key) == 6
    ]
    pixels = np.stack([train.image(i) for i in whole])
    assert len(pixels) > 50 and pixels.shape[1:] == (64, 64, 3) and pixels.std() > 40


@pytest.mark.data
def test_the_clean_variant_of_real_images(real):
    source = read(real, clean=True)
    assert sum(counts(source)) == 6784
    assert len(set(source.splits["train"].keys)) == 6784
