"""ImageNet-LT: the list decides, wherever the images lie."""

import gzip
import tarfile

import pytest
from image_tools import SHARED, counts, put

from data_prep.options import Options
from data_prep.readers.imagenet import PUBLISHED_LIST, git_blob_id, read_imagenet_lt
from data_prep.readers.imagenet_counts import imagenet_lt_counts

LINES = [
    "train/n01440764/n01440764_190.JPEG 0",
    "train/n01443537/n01443537_2.JPEG 1",
    "train/n01443537/n01443537_77.JPEG 1",
]
LAYOUTS = [
    "train/{wnid}",
    "Data/CLS-LOC/train/{wnid}",
    "ILSVRC/Data/CLS-LOC/train/{wnid}",
    "{wnid}",
    "train/{wnid}/images",
]


def make_imagenet(folder, lines=LINES, layout=LAYOUTS[0]):
    """The images of the lines, and the list."""
    for line in lines:
        wnid, file = line.split()[0].split("/")[-2:]
        put(folder / layout.format(wnid=wnid) / file)
    put(folder / "list.txt", "\n".join(lines).encode())
    return folder


def read(folder, **options):
    paths = {"source": folder, "out": folder / "out", "train_list": folder / "list.txt"}
    options = {option: str(path) for option, path in paths.items()} | options
    return read_imagenet_lt("imagenet_lt", Options(**options))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_found_in_every_common_layout(tmp_path, layout):
    source = read(make_imagenet(tmp_path, layout=layout))
    assert source.class_names == ("n01440764", "n01443537")
    assert counts(source) == [1, 2] == counts(source, "eval")
    assert source.splits["train"].keys[0] == "train-n01440764-n01440764_190"
    assert source.splits["train"].image(2).shape == (64, 64, 3)


def test_without_val_the_training_images_are_eval_and_it_says_so(tmp_path):
    notes = read(make_imagenet(tmp_path)).notes
    assert any("eval is the training images: --source" in note for note in notes)


def test_another_list_is_told_by_its_blob_id_and_counts(tmp_path):
    source = read(make_imagenet(tmp_path))
    blob = git_blob_id((tmp_path / "list.txt").read_bytes())
    notes = " | ".join(source.notes)
    assert f"its git blob id is {blob}, published is {PUBLISHED_LIST}" in notes
    assert "3 images of 2 classes; published are 115,846 of 1,000" in notes
    assert "another count than published: n01440764 1, n01443537 2" in notes
    assert source.made.startswith(f"ImageNet by a list of 3 lines, git blob id {blob}; 64x64")


def test_the_blob_id_is_gits(tmp_path):
    put(tmp_path / "a", b"what is up, doc?")  # the example of the Pro Git book
    assert git_blob_id((tmp_path / "a").read_bytes()) == (
        "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    )


def test_published_counts_are_recognised(tmp_path):
    wnids = ("n01440764", "n01443537")
    published = [imagenet_lt_counts()[w] for w in wnids]
    lines = [
        f"train/{w}/{w}_{i}.JPEG {c}" for c, w in enumerate(wnids) for i in range(published[c])
    ]
    put(tmp_path / "list.txt", "\n".join(lines).encode())
    for line in lines[:1] + lines[-1:]:
        put(tmp_path / line.split()[0])
    source = read(tmp_path, allow_missing=len(lines))
    assert any("Each of its classes has the published count" in note for note in source.notes)
    assert source.allow_missing == 2 and counts(source) == [1, 1]


def test_eval_is_the_folder_val_sorted_into_classes(tmp_path):
    make_imagenet(tmp_path)
    for wnid, n in (("n01440764", 5), ("n01443537", 4), ("n09999999", 3)):
        for i in range(n):
            put(tmp_path / "val" / wnid / f"ILSVRC2012_val_{i:08d}.JPEG")
    source = read(tmp_path)
    assert counts(source, "eval") == [5, 4]
    assert "eval from the folder val" in source.made
    assert source.splits["eval"].image(0).shape == (64, 64, 3)


def test_eval_is_a_list_of_flat_or_sorted_validation_images(tmp_path):
    make_imagenet(tmp_path)
    put(tmp_path / "val/ILSVRC2012_val_00000001.JPEG")
    put(tmp_path / "val/n01443537/ILSVRC2012_val_00000002.JPEG")
    lines = "val/n01440764/ILSVRC2012_val_00000001.JPEG 0\n"
    lines += "val/n01443537/ILSVRC2012_val_00000002.JPEG 7\n"
    lines += "val/n09999999/ILSVRC2012_val_00000003.JPEG 8\n"  # of no training class
    eval_list = put(tmp_path / "eval.txt", lines.encode())
    source = read(tmp_path, eval_list=str(eval_list))
    assert counts(source, "eval") == [1, 1]
    assert "eval by a list of 2 lines" in source.made
    assert any("not in --train-list: n09999999; their" in note for note in source.notes)
    put(tmp_path / "eval.txt", lines.splitlines()[0].encode())
    notes = read(tmp_path, eval_list=str(eval_list)).notes
    assert "eval has no image of the classes n01443537" in notes


def test_a_flat_val_needs_labels(tmp_path):
    make_imagenet(tmp_path)
    put(tmp_path / "val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(
        ValueError, match="not sorted into classes. Give their labels by --eval"
    ):
        read(tmp_path)
    text = b"ImageId,PredictionString\nILSVRC2012_val_00000001,n01443537 1 2 3 4 \n"
    put(tmp_path / "LOC_val_solution.csv", text)
    assert counts(read(tmp_path), "eval") == [0, 1]


def test_missing_images_are_an_error_that_names_them(tmp_path):
    make_imagenet(tmp_path)
    (tmp_path / "train/n01443537/n01443537_77.JPEG").unlink()
    with pytest.raises(ValueError, match="lacks 1 images .*/n01443537_77.JPEG"):
        read(tmp_path)
    names = (tmp_path / "out/imagenet_lt.missing.txt").read_text()
    assert names == "train/n01443537/n01443537_77.JPEG\n"
    source = read(tmp_path, allow_missing=1)
    assert counts(source) == [1, 1] and source.allow_missing == 0
    assert source.made.endswith("; missing images left out: 1")


def test_other_paths_in_the_list_are_cut(tmp_path):
    make_imagenet(tmp_path)
    text = "\n".join("/home/somebody/imagenet/" + line for line in LINES) + "\n\n"
    put(tmp_path / "list.txt", text.encode())
    assert counts(read(tmp_path)) == [1, 2]
    put(
        tmp_path / "list.txt", "\n".join(line.removeprefix("train/") for line in LINES).encode()
    )
    assert counts(read(tmp_path)) == [1, 2]


def test_train_and_val_are_what_the_list_says_whatever_the_file_is_called(tmp_path):
    """Some subsets keep validation images in their training folder."""
    lines = [*LINES, "train/n01443537/ILSVRC2012_val_00000005.JPEG 1"]
    make_imagenet(tmp_path, lines)
    assert counts(read(tmp_path)) == [1, 3]
    put(tmp_path / "list.txt", "\n".join("/some/place/" + line for line in lines).encode())
    keys = read(tmp_path).splits["train"].keys
    assert keys[-1] == "train-n01443537-ILSVRC2012_val_00000005"


def test_labels_of_the_thousand_classes_are_numbered_anew(tmp_path):
    lines = ["train/n01498041/n01498041_1.JPEG 6", "train/n01558993/n01558993_1.JPEG 15"]
    source = read(make_imagenet(tmp_path, lines))
    assert source.splits["train"].labels.tolist() == [0, 1]
    assert any("2 classes with labels up to 15: they are numbered 0" in n for n in source.notes)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["train/n01440764/a.JPEG 1", "train/n01443537/b.JPEG 0"], "order of the sorted Word"),
        (["train/n01440764/a.JPEG 0", "train/n01443537/b.JPEG 0"], "order of the sorted Word"),
        (
            ["train/n01440764/a.JPEG 0", "train/n01440764/b.JPEG 1"],
            "line 2 gives n01440764 label 1, an earlier one 0",
        ),
        (["train/n01440764/a.JPEG 0"], "names a single class, n01440764"),
        (["train/n01440764/a.JPEG 0", "cats/b.JPEG 1"], "line 2 is 'cats/b.JPEG 1', not like"),
        (["train/n01440764/../../x 0"], "line 1 is .* not like"),
    ],
)
def test_wrong_lists_are_told_with_their_line(tmp_path, lines, message):
    put(tmp_path / "list.txt", "\n".join(lines).encode())
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_lists_that_are_not_there_name_their_option(tmp_path):
    make_imagenet(tmp_path)
    with pytest.raises(ValueError, match=r"--train-list \(gone.txt\): there is no such file"):
        read(tmp_path, train_list="gone.txt")
    with pytest.raises(ValueError, match=r"--eval-list \(gone.txt\): there is no such file"):
        read(tmp_path, eval_list="gone.txt")
    with pytest.raises(ValueError, match=r"--train-list \(.*\.JPEG\) cannot be read"):
        read(tmp_path, train_list=str(tmp_path / LINES[0].split()[0]))
    odd = put(tmp_path / "odd.txt", b"val/n09999999/ILSVRC2012_val_00000003.JPEG 8\n")
    with pytest.raises(ValueError, match="has no image of the classes of --train-list"):
        read(tmp_path, eval_list=str(odd))


def test_the_counts_are_the_published_ones():
    n = list(imagenet_lt_counts().values())
    assert list(imagenet_lt_counts()) == sorted(imagenet_lt_counts()) and len(n) == 1000
    assert (sum(n), max(n), min(n)) == (115_846, 1280, 5)
    groups = sum(c > 100 for c in n), sum(20 <= c <= 100 for c in n), sum(c < 20 for c in n)
    assert groups == (385, 479, 136)


# Real images and lists.


def unpack(name, folder):
    archive = SHARED / "imagenet" / name
    if not archive.exists():
        pytest.skip("real ImageNet images (shared/data) are not beside this checkout")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def list_of(train, path):
    """A list of all the images there are."""
    lines = []
    for label, wnid in enumerate(sorted(p.name for p in train.iterdir())):
        files = sorted(p.name for p in (train / wnid).rglob("*.JPEG"))
        lines += [f"train/{wnid}/{file} {label}" for file in files]
    put(path, "\n".join(lines).encode())


@pytest.mark.data
@pytest.mark.parametrize(
    ("archive", "root", "train", "evaluated"),
    [
        ("imagenette_lt", "imagenet", [150, 89, 53, 32, 19, 11, 6, 4, 2, 1], [10] * 10),
        ("imagenet_samples", "imagenet", [1] * 16, [1] * 16),
        ("tiny_imagenet_lt25", "tiny-imagenet-200", None, None),
    ],
)
def test_real_images(tmp_path, archive, root, train, evaluated):
    unpack(f"{archive}.tar.gz", tmp_path)
    list_of(tmp_path / root / "train", tmp_path / root / "list.txt")
    source = read(tmp_path / root)
    if train is not None:
        assert (counts(source), counts(source, "eval")) == (train, evaluated)
    else:
        assert (max(counts(source)), min(counts(source)), sum(counts(source))) == (300, 3, 1692)
    images = source.splits["train"].image
    assert all(images(i).shape == (64, 64, 3) for i in range(0, sum(counts(source)), 10))


@pytest.mark.data
def test_the_true_lines_of_90_classes_with_other_images(tmp_path):
    unpack("imagenette_lt.tar.gz", tmp_path)
    text = gzip.decompress((SHARED / "imagenet_lt/ImageNet_LT_train_90.txt.gz").read_bytes())
    put(tmp_path / "imagenet/list.txt", text)
    with pytest.raises(ValueError, match="lacks 7,614 images"):
        read(tmp_path / "imagenet")
    missing = (tmp_path / "imagenet/out/imagenet_lt.missing.txt").read_text().splitlines()
    assert missing == [line.split()[0] for line in text.decode().splitlines()]
    with pytest.raises(ValueError, match="no training image of 90 of 90 classes"):
        read(tmp_path / "imagenet", allow_missing=7614)


@pytest.mark.data
def test_the_true_lines_have_the_published_counts_and_order(tmp_path):
    path = SHARED / "imagenet_lt/ImageNet_LT_train_90.txt.gz"
    if not path.exists():
        pytest.skip("the true lists (shared/data) are not beside this checkout")
    put(tmp_path / "list.txt", gzip.decompress(path.read_bytes()))
    for line in (tmp_path / "list.txt").read_text().splitlines():
        (tmp_path / line.split()[0]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / line.split()[0]).touch()
    source = read(tmp_path)
    assert sum(counts(source)) == 7614 and len(source.class_names) == 90
    notes = " | ".join(source.notes)
    assert "Each of its classes has the published count" in notes
    assert "with labels up to" in notes
