import os
import unicodedata

import numpy as np
import pytest

from data_prep.readers.class_folders import find_splits, list_folder
from data_prep.readers.keys import make_keys


def fill(root, *files):
    """Files that are not opened here, so that their content does not matter."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def list_(root):
    return list_folder(root, "--source")


def test_classes_are_sorted_and_images_of_any_depth_are_found(tmp_path):
    fill(tmp_path, "b/1.png", "a/deep/er/2.JPEG", "a/3.webp", "C/4.tif")
    found = list_(tmp_path)
    assert found.class_names == ("C", "a", "b")
    assert found.listing.names == ("C/4.tif", "a/3.webp", "a/deep/er/2.JPEG", "b/1.png")
    assert found.listing.labels.tolist() == [0, 1, 1, 2]
    assert found.listing.paths == tuple(str(tmp_path / name) for name in found.listing.names)
    assert found.notes == (
        "1 images lie in folders of the class folders, such as a/deep/er/2.JPEG: the first "
        "folder is the class",
    )


def test_hostile_names_are_names_like_others(tmp_path):
    files = ("a.b/..x.jpg/1.png", "a.b/two words.png", "a.b/new\nline.png", "a.b/1..png")
    files += ("ü/日本.png", "ü/'; drop.png", "ü/\udcff.png", "...hidden/1.png")
    fill(tmp_path, *files)
    found = list_(tmp_path)
    assert found.class_names == ("a.b", "ü")
    assert np.bincount(found.listing.labels).tolist() == [3, 3]
    assert "ignored 2 hidden files and folders" in found.notes[0]
    assert len(set(make_keys(found.listing.names))) == 6
    assert all(os.path.exists(path) for path in found.listing.paths)


def test_what_is_no_image_is_counted(tmp_path):
    fill(
        tmp_path, "a/1.png", "b/2.jpg", "a/labels.txt", "a/more.TXT", "b/README", "b/.DS_Store"
    )
    fill(tmp_path, "list.csv", "__MACOSX/a/1.png", "b/@eaDir/2.jpg")
    os.mkfifo(tmp_path / "b/pipe.png")
    (note,) = list_(tmp_path).notes
    assert "ignored 3 hidden files and folders, 5 files that are no images" in note
    assert "2 .txt" in note and "1 without suffix" in note and "1 .png" in note


def test_links_in_a_circle_end(tmp_path):
    fill(tmp_path, "a/x/1.png", "b/2.png")
    (tmp_path / "a/x/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/all").symlink_to(tmp_path)
    (tmp_path / "b/other").symlink_to(tmp_path / "a")
    (tmp_path / "a/self").symlink_to("self")
    found = list_(tmp_path)
    assert found.listing.names == ("a/x/1.png", "b/2.png")
    assert "3 links to folders that were seen already" in found.notes[0]


def test_links_are_followed_and_a_dangling_one_is_a_missing_image(tmp_path):
    fill(tmp_path / "elsewhere", "1.png", "deep/2.png")
    fill(tmp_path / "in", "b/1.png")
    (tmp_path / "in/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/b/lost.png").symlink_to(tmp_path / "nowhere.png")
    assert list_(tmp_path / "in").listing.names == (
        "a/1.png",
        "a/deep/2.png",
        "b/1.png",
        "b/lost.png",
    )


def test_one_folder_under_two_class_names_is_refused(tmp_path):
    fill(tmp_path, "a/1.png")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="one and the same by a link"):
        list_(tmp_path)


def test_class_names_are_one_spelling_of_their_letters(tmp_path):
    spelt = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    fill(tmp_path, f"{spelt[1]}/1.png", "tea/1.png")
    assert list_(tmp_path).class_names == (spelt[0], "tea")
    fill(tmp_path, f"{spelt[0]}/1.png")
    with pytest.raises(ValueError, match="two class folders are called 'café'"):
        list_(tmp_path)


def test_classes_that_are_numbers_are_in_their_order_and_each_is_one_folder(tmp_path):
    fill(tmp_path, *(f"{n}/1.png" for n in range(12)))
    assert list_(tmp_path).class_names == tuple(map(str, range(12)))
    fill(tmp_path, "07/1.png")
    with pytest.raises(ValueError, match="'0?7' and '0?7' are the same number"):
        list_(tmp_path)


def test_class_name_that_is_not_utf8_is_refused(tmp_path):
    fill(tmp_path, "a/1.png", "\udcff/1.png")
    with pytest.raises(ValueError, match=r"xff' is not UTF-8. Rename it"):
        list_(tmp_path)


def test_empty_class_folders_are_named(tmp_path):
    fill(tmp_path, "a/1.png", "c/note.txt")
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="2 class folders hold no image: 'b', 'c'. Remove"):
        list_(tmp_path)


def test_too_few_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--source \(.*\) holds nothing and no class folders"):
        list_(tmp_path)
    fill(tmp_path, "1.png", "2.png")
    with pytest.raises(ValueError, match="holds 2 files and no class folders"):
        list_(tmp_path)
    fill(tmp_path, "a/1.png")
    with pytest.raises(ValueError, match="has 1 class; at least 2"):
        list_(tmp_path)
    fill(tmp_path, "b/1.png")
    assert list_(tmp_path).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("folders", "found", "note"),
    [
        ("train val", {"train": "train", "test": "val"}, "val/ is the split test"),
        ("train val test", {"train": "train", "test": "test"}, "test, val/ is not read"),
        ("train validation", {"train": "train", "test": "validation"}, "validation/ is the"),
        ("Train TEST", {"train": "Train", "test": "TEST"}, "Train/ is the split train, TEST/"),
        ("training testing", {"train": "training", "test": "testing"}, "testing/ is the split"),
        ("train", {"train": "train"}, "train/ is the split train"),
        ("train test bus", {"train": "."}, "test, train are taken for classes"),
        ("train dev", {"train": "."}, "dev, train are taken for classes"),
        ("train_set test-set", {"train": "."}, "test-set, train_set are taken for classes"),
        ("dev bus", {"train": "."}, "dev is taken for a class"),
        ("train_set car", {"train": "."}, "train_set is taken for a class"),
        ("eval bus", {"train": "."}, "eval is taken for a class"),
        ("trainer valve evan", {"train": "."}, ""),
        ("train Train", {"train": "."}, "Train, train are taken for classes"),
        ("val test", {"train": "."}, "test, val are taken for classes"),
        ("bus car", {"train": "."}, ""),
    ],
)
def test_imagefolders_layout_is_recognised_only_when_alone(tmp_path, folders, found, note):
    """And which reading was taken is said."""
    for folder in folders.split():
        (tmp_path / folder).mkdir()
    fill(tmp_path, ".cache/x", "classes.txt")
    splits, notes = find_splits(tmp_path, "--source")
    assert splits == {s: tmp_path / f for s, f in found.items()}
    assert note in " ".join(notes) and bool(note) == bool(notes)


def test_a_stray_level_of_folders_is_passed_and_said(tmp_path):
    fill(tmp_path, "photos/birds/Train/a/1.png", "photos/birds/Val/a/1.png", "photos/x.txt")
    splits, notes = find_splits(tmp_path, "--source")
    birds = tmp_path / "photos/birds"
    assert splits == {"train": birds / "Train", "test": birds / "Val"}
    assert notes[0] == f"--source: the classes are the folders in {birds}"
    fill(tmp_path, "photos/2.png")
    assert find_splits(tmp_path, "--source") == ({"train": tmp_path}, ())


def test_a_circle_of_stray_levels_ends(tmp_path):
    (tmp_path / "all").symlink_to(tmp_path)
    assert find_splits(tmp_path, "--source")[0]["train"].samefile(tmp_path)


def test_source_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--source \(.*gone\) is neither a folder nor a .csv"):
        find_splits(tmp_path / "gone", "--source")
