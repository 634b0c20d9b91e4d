"""Images by number, from every form they are kept in, and fingerprints that miss no change."""

import zipfile
import zlib

import numpy as np
import pytest
from extractor_tools import write_npz
from image_tools import encoded, png_header, with_chunk
from PIL import Image
from process_tools import sent
from shard_tools import copy_digits

from cbdm_scale.metrics.npz import NpzImages
from cbdm_scale.metrics.sources import FolderImages, SplitImages, Subset, open_images


def save_folder(folder, names):
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_stored_or_compressed(save, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    save(tmp_path / "a.npz", arr_0=pixels, arr_1=np.arange(6))
    images = NpzImages(tmp_path / "a.npz")
    assert isinstance(images.pixels, np.memmap) == (save is np.savez)
    np.testing.assert_array_equal(images.read([4, 1]), pixels[[4, 1]].transpose(0, 3, 1, 2))
    assert images.labels.tolist() == list(range(6)) and images.count == 6


def test_an_npz_travels_without_its_pixels(tmp_path):
    images = NpzImages(write_npz(tmp_path / "a.npz"))
    expected = images.read(range(23))
    np.testing.assert_array_equal(sent(images, most=1000).read(range(23)), expected)


def test_an_npz_without_labels_or_images_says_so(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=np.zeros((2, 8, 8, 3), np.uint8))
    assert NpzImages(tmp_path / "a.npz").labels.tolist() == [-1, -1]
    np.savez(tmp_path / "b.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match="b.npz has no arr_0"):
        NpzImages(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", arr_0=np.zeros((2, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"c.npz: arr_0 must be \(N, H, W, C\) uint8.*float64"):
        NpzImages(tmp_path / "c.npz")
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "d.npz", arr_0=np.zeros((0, 8, 8, 3), np.uint8), arr_1=np.zeros(0))
        with pytest.raises(ValueError, match="d.npz holds no images"):
            NpzImages(tmp_path / "d.npz")


def npz_of(path, shape, pixels):
    """arr_0 that says a shape, and holds so many pixels of 0, packed."""
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("arr_0.npy", "w", force_zip64=True) as stream:
        about = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, about)
        for _ in range(pixels // 1_000_000):
            stream.write(bytes(1_000_000))


def test_an_npz_that_would_fill_memory_or_has_other_labels_is_refused(tmp_path):
    npz_of(tmp_path / "bomb.npz", (300, 1000, 1000, 1), 300_000_000)
    with pytest.raises(
        ValueError, match="bomb.npz: arr_0 cannot be read: .* no images do that"
    ):
        NpzImages(tmp_path / "bomb.npz")
    npz_of(tmp_path / "less.npz", (10**12, 8, 8, 3), 0)
    with pytest.raises(ValueError, match="less.npz: arr_0 cannot be read"):
        NpzImages(tmp_path / "less.npz")
    np.savez(tmp_path / "c.npz", arr_0=np.zeros((2, 8, 8, 3), np.uint8), arr_1=np.zeros(3))
    with pytest.raises(ValueError, match="c.npz: arr_1 has 3 labels for 2 images"):
        _ = NpzImages(tmp_path / "c.npz").labels
    (tmp_path / "no.npz").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match="no.npz is not an .npz file"):
        NpzImages(tmp_path / "no.npz")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["03-cat/a.png", "10/b.png", "3/c.png"], [3, 10, 3]),
        (["cat/a.png", "dog/b.png", "dog/c.png"], [0, 1, 1]),
        (["a.png", "b.png"], [-1, -1]),
    ],
)
def test_a_folders_classes_are_its_numbers_or_its_names_in_order(names, labels, tmp_path):
    images = FolderImages(save_folder(tmp_path, names))
    assert images.labels.tolist() == labels
    assert images.read(range(images.count)).shape == (len(names), 3, 8, 8)


def test_a_folders_labels_follow_the_names_of_the_classes(tmp_path):
    folder = save_folder(tmp_path, ["dog/a.png", "cat/b.png", "c.png"])
    images = open_images(str(folder), ("dog", "bird", "cat"))
    assert dict(zip(images.files, images.labels.tolist(), strict=True)) == {
        "c.png": -1,
        "cat/b.png": 2,
        "dog/a.png": 0,
    }
    other = open_images(str(folder), ("bird", "cat", "dog"))
    assert other.fingerprint != images.fingerprint
    with pytest.raises(ValueError, match="has classes that the data set has not: dog. Its"):
        open_images(str(folder), ("cat", "bird"))


def test_the_labels_of_shards_follow_the_names_of_the_classes(digits_root):
    where, digits = f"{digits_root}/digits_lt:eval", tuple("0123456789")
    names = digits[::-1]
    plain, turned = open_images(where), open_images(where, names)
    np.testing.assert_array_equal(turned.labels, 9 - plain.labels)
    assert turned.fingerprint != plain.fingerprint
    assert open_images(where, digits).fingerprint == plain.fingerprint
    with pytest.raises(ValueError, match="digits_lt:eval has classes .* has not: 7, 8, 9"):
        open_images(where, names[3:])


def test_the_labels_of_an_npz_follow_its_names(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    names, path = np.array(["dog", "cat", "owl"]), str(tmp_path / "a.npz")
    np.savez(path, arr_0=pixels, arr_1=[1, 0, -1, 1], class_names=names)
    plain = open_images(path)
    turned = open_images(path, ("bird", "cat", "dog"))
    assert plain.labels.tolist() == [1, 0, -1, 1] and turned.labels.tolist() == [1, 2, -1, 1]
    assert open_images(path, tuple(names)).fingerprint == plain.fingerprint
    assert turned.fingerprint != plain.fingerprint and turned.count == 4
    np.testing.assert_array_equal(sent(turned).read([3]), plain.read([3]))
    with pytest.raises(ValueError, match="a.npz has classes that the data set has not: cat. I"):
        open_images(path, ("bird", "dog"))
    np.savez(path, arr_0=pixels, arr_1=[1, 0, 2, 3], class_names=names)
    with pytest.raises(ValueError, match="a.npz has label 3 and 3 names of classes"):
        open_images(path, ("cat", "dog", "owl"))
    np.savez(path, arr_0=pixels, class_names=np.array(["a", None], object))
    with pytest.raises(ValueError, match="class_names cannot be read"):
        open_images(path, ("cat", "dog"))


def test_a_folders_fingerprint_sees_bytes_and_names(tmp_path):
    folder = save_folder(tmp_path, ["0/a.png", "1/b.png"])
    first = FolderImages(folder).fingerprint
    assert FolderImages(folder).fingerprint == first
    (folder / "0" / "a.png").rename(folder / "1" / "a.png")
    second = FolderImages(folder).fingerprint
    save_folder(tmp_path, ["1/b.png"])
    assert len({first, second, FolderImages(folder).fingerprint}) == 3


def test_a_folder_takes_what_data_prep_takes(tmp_path):
    """A profile of 2 MB; and neither EPS, which starts a program, nor too many pixels."""
    data = encoded(Image.new("RGB", (8, 8), (1, 2, 3)))
    profile = b"big\0\0" + zlib.compress(bytes(2 << 20))
    (tmp_path / "a.PNG").write_bytes(with_chunk(data, b"iCCP", profile))
    (tmp_path / "b.png").write_bytes(encoded(Image.new("RGB", (8, 8)), "EPS"))
    (tmp_path / "c.tiff").write_bytes(png_header(20_000, 20_000))
    images = FolderImages(tmp_path)
    assert images.read([0])[0, :, 0, 0].tolist() == [1, 2, 3]
    for number, words in ((1, "b.png does not decode: not an"), (2, "c.tiff .*too large")):
        with pytest.raises(ValueError, match=words):
            images.read([number])


def test_a_folder_of_mixed_sizes_names_the_image(tmp_path):
    folder = save_folder(tmp_path, ["a.png", "b.png"])
    Image.new("RGB", (9, 8)).save(folder / "b.png")
    with pytest.raises(ValueError, match=r"b.png is \(3, 8, 9\).*Scale them"):
        FolderImages(folder).read([0, 1])


def test_a_split_is_read_from_its_shards(tmp_path):
    copy_digits(tmp_path)
    images = open_images(f"{tmp_path}/digits_lt:eval")
    assert isinstance(images, SplitImages)
    assert images.read([2, 0]).shape == (2, 1, 8, 8)
    train = open_images(f"{tmp_path}/digits_lt:train")
    assert train.fingerprint != images.fingerprint
    np.testing.assert_array_equal(sent(images).read([2]), images.read([2]))


def test_chosen_images_are_those_of_their_numbers(tmp_path):
    images = NpzImages(write_npz(tmp_path / "a.npz"))
    some = Subset(images, (7, 2, 11))
    np.testing.assert_array_equal(some.read([0, 2]), images.read([7, 11]))
    assert some.labels.tolist() == [1, 2, 2] and some.count == 3


def test_a_place_that_is_not_there_says_what_may_be(tmp_path):
    with pytest.raises(
        ValueError, match="none is not there. Give an .npz file, a folder of im"
    ):
        open_images(str(tmp_path / "none"))
