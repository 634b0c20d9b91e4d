from pathlib import Path

import numpy as np
import pytest
from own_tools import make_images
from process_tools import sent

from data_prep.options import Options
from data_prep.readers.folder import read_folder
from data_prep.source import BadImage

SHARED = Path(__file__).parents[2] / "shared" / "data"


def read(root, **options):
    return read_folder(
        "mine",
        Options(out=str(root.parent / "out"), source=str(root), **{"resolution": 4} | options),
    )


def test_a_folder_is_read_resized_and_is_its_own_eval(tmp_path):
    source = read(make_images(tmp_path))
    train, held = source.splits["train"], source.splits["eval"]
    assert list(source.splits) == ["train", "eval"]
    assert (source.class_names, source.image_size, source.channels) == (("a", "b"), 4, 3)
    assert train.keys == held.keys == ["a-0", "a-1", "b-0", "b-1"]
    image = sent(train).image(3)
    np.testing.assert_array_equal(image, np.full((4, 4, 3), (50, 10, 0)))
    assert source.notes == () and "bicubic" in source.made and str(tmp_path) not in source.made


def test_grey_on_request(tmp_path):
    source = read(make_images(tmp_path), channels=1)
    assert source.channels == 1 and source.splits["train"].image(0).shape == (4, 4, 1)


def test_imagefolders_val_becomes_test(tmp_path):
    make_images(tmp_path / "train")
    make_images(tmp_path / "val", each=1)
    source = read(tmp_path)
    assert {s: len(split.labels) for s, split in source.splits.items()} == {
        "train": 4,
        "eval": 4,
        "test": 2,
    }


def test_a_table_is_read_relative_to_itself(tmp_path):
    make_images(tmp_path / "images")
    (tmp_path / "list.csv").write_text("path,label\nimages/b/1.png,x\nimages/a/0.png,y\n")
    source = read(tmp_path / "list.csv", eval_source=str(tmp_path / "list.csv"))
    assert source.class_names == ("x", "y")
    np.testing.assert_array_equal(source.splits["eval"].image(0)[0, 0], (50, 10, 0))


def test_missing_images_of_a_table_are_counted_and_named_in_a_file(tmp_path):
    make_images(tmp_path / "in/images")
    rows = [f"images/{name}.png,{label}" for name, label in (("a/0", 0), ("b/0", 1), ("c", 0))]
    (tmp_path / "in/list.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(ValueError, match=r"1 images .*mine.missing.txt.*--allow-missing 1"):
        read(tmp_path / "in/list.csv")
    assert (tmp_path / "in/out/mine.missing.txt").read_text() == "images/c.png\n"
    source = read(tmp_path / "in/list.csv", allow_missing=3)
    assert source.splits["train"].keys == ["images-a-0", "images-b-0"]
    assert source.allow_missing == 2 and "train lacks 1 images (0 1 of 2)" in source.notes[0]
    (tmp_path / "in/images/b/0.png").unlink()
    with pytest.raises(ValueError, match="no training image of 1 of 2 classes: 1"):
        read(tmp_path / "in/list.csv", allow_missing=3)


def test_long_tailed_eval_is_told_and_another_source_mends_it(tmp_path):
    make_images(tmp_path / "in", each=3)
    (tmp_path / "in/b/0.png").unlink()
    (tmp_path / "in/b/1.png").unlink()
    assert (
        "1 to 3 a class. Give balanced ones with --eval-source"
        in read(tmp_path / "in").notes[0]
    )
    source = read(tmp_path / "in", eval_source=str(make_images(tmp_path / "held", each=5)))
    assert source.notes == () and len(source.splits["eval"].labels) == 10


NUMBERS = tuple(map(str, range(12)))
LIST = ["path,label", *(f"{n}/0.png,{n}" for n in reversed(NUMBERS))]


@pytest.mark.parametrize(("source", "held"), [("list.csv", "."), (".", "list.csv")])
def test_labels_of_a_table_and_of_folders_follow_the_names(tmp_path, source, held):
    """Class 10 is 10 in both, although "10" stands before "2" in a listing of folders."""
    root = make_images(tmp_path / "in", NUMBERS, each=1)
    (root / "list.csv").write_text("\n".join(LIST))
    read_ = read(root / source, eval_source=str(root / held))
    assert read_.class_names == NUMBERS
    for split in read_.splits.values():
        seen = {key: int(label) for key, label in zip(split.keys, split.labels, strict=True)}
        assert seen == {f"{n}-0": int(n) for n in NUMBERS}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (NUMBERS[:-1], "lacks '11'"),
        ((*NUMBERS[:3], "12", *NUMBERS[4:]), "lacks '3' and has besides '12'"),
        ((*NUMBERS, "12"), "but has besides '12'"),
    ],
)
def test_a_table_of_eval_with_other_classes_is_refused(tmp_path, numbers, message):
    root = make_images(tmp_path / "in", NUMBERS, each=1)
    rows = [f"0/0.png,{n}" for n in numbers]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(ValueError, match=rf"--eval-source \(.*list.csv\): .*{message}"):
        read(root, eval_source=str(tmp_path / "list.csv"))


def test_eval_may_spell_the_numbers_otherwise_and_need_not_begin_at_0(tmp_path):
    root = make_images(tmp_path / "in", ("9", "10"), each=1)
    held = make_images(tmp_path / "held", ("09", "10"), each=2)
    assert read(root, eval_source=str(held)).splits["eval"].labels.tolist() == [0, 0, 1, 1]
    (tmp_path / "list.csv").write_text("path,label\nin/10/0.png,10\nin/9/0.png,9\n")
    split = read(root, eval_source=str(tmp_path / "list.csv")).splits["eval"]
    assert split.labels.tolist() == [1, 0] and split.keys == ["in-10-0", "in-9-0"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("a", "c"), r"--eval-source \(.*\): the eval .* lacks 'b' and has besides 'c'"),
        (("a", "b", "c"), "but has besides 'c'"),
    ],
)
def test_eval_source_with_other_classes_is_refused(tmp_path, classes, message):
    held = make_images(tmp_path / "held", classes)
    with pytest.raises(ValueError, match=message):
        read(make_images(tmp_path / "in"), eval_source=str(held))


def test_test_split_with_other_classes_is_refused(tmp_path):
    make_images(tmp_path / "train")
    make_images(tmp_path / "test", ("a", "x"))
    with pytest.raises(ValueError, match=r"--source .*the test images .* lacks 'b'"):
        read(tmp_path)


def test_an_image_that_is_none_is_named_when_it_is_asked_for(tmp_path):
    make_images(tmp_path)
    (tmp_path / "b/0.png").write_text("no image")
    (tmp_path / "b/1.png").unlink()
    (tmp_path / "b/1.png").symlink_to("nowhere")
    split = read(tmp_path).splits["train"]
    with pytest.raises(BadImage, match="b/0.png: not an image"):
        split.image(2)
    with pytest.raises(BadImage, match="b/1.png: No such file"):
        split.image(3)


@pytest.mark.data
def test_imagenette_as_a_folder(tmp_path):
    """Images of ImageNet in its own layout: 367 to train, 150 down to 1 a class, and val."""
    import tarfile

    archive = SHARED / "imagenet" / "imagenette_lt.tar.gz"
    if not archive.exists():
        pytest.skip("the real images (shared/data) are not beside this checkout")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    source = read(tmp_path / "imagenet", resolution=32)
    train, test = source.splits["train"], source.splits["test"]
    assert (len(train.labels), len(test.labels)) == (367, 100)
    assert sorted(np.bincount(train.labels))[::9] == [1, 150]
    assert all(train.image(i).shape == (32, 32, 3) for i in range(0, 367, 40))
