import io
import multiprocessing
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
import webdataset
from PIL import Image
from process_tools import sent
from shard_tools import copy_digits

from cbdm_scale.data.index import open_index
from cbdm_scale.data.shards import BadSample, ShardReader, _LocalFile, decode
from data_prep.readers.digits import read_digits_lt


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    copy_digits(root)
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made, tmp_path / "shards")
    return tmp_path / "shards"


def open_reader(root, split="train", **options):
    index = open_index(str(root), "digits_lt", split)
    return ShardReader(str(root), "digits_lt", index, **options)


def damage(root, index, row, at):
    """Flip one bit of an image's bytes."""
    path = root / "digits_lt" / index.shard_name(index.shard_of[row])
    raw = bytearray(path.read_bytes())
    raw[index.offsets[row] + at] ^= 1
    path.write_bytes(raw)


def encode(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_every_image_is_the_source_image(root):
    source = read_digits_lt().splits["eval"]
    reader = open_reader(root, "eval")
    where = {key: i for i, key in enumerate(source.keys)}
    for row in range(reader.index.num_samples):
        i = where.pop(reader.index.key(row))
        image = reader.load(row)
        assert image.shape == (1, 8, 8)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, source.image(i).transpose(2, 0, 1))
        assert reader.index.labels[row] == source.labels[i]
    assert not where


def test_byte_ranges_agree_with_a_webdataset_scan(root):
    reader = open_reader(root)
    tars = sorted(map(str, (root / "digits_lt/train").glob("*.tar")))
    scan = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert len(scan) == reader.index.num_samples
    for row, sample in enumerate(scan):
        assert (reader.index.key(row), reader.read(row)) == (sample["__key__"], sample["png"])
        assert reader.index.labels[row] == int(sample["cls"])


@pytest.mark.parametrize("at", [0, 30, -1])
def test_a_flipped_bit_is_a_bad_sample(root, at):
    reader = open_reader(root)
    damage(root, reader.index, 150, at % int(reader.index.lengths[150]))
    with pytest.raises(BadSample, match="crc32") as caught:
        reader.read(150)
    assert caught.value.key == reader.index.key(150)
    assert caught.value.shard == "train/000001.tar"
    reader.read(149), reader.read(151)


def test_image_that_does_not_decode_is_a_bad_sample(root):
    reader = open_reader(root)
    index, row = reader.index, 7
    crc = index.crc32.copy()
    path = root / "digits_lt" / index.shard_name(index.shard_of[row])
    raw = bytearray(path.read_bytes())
    start, end = index.offsets[row], index.offsets[row] + index.lengths[row]
    raw[start:end] = bytes(end - start)
    path.write_bytes(raw)
    crc[row] = zlib.crc32(bytes(end - start))
    index.crc32 = crc
    with pytest.raises(BadSample, match="does not decode"):
        reader.load(row)


def test_missing_shard_makes_its_samples_bad(root):
    reader = open_reader(root)
    (root / "digits_lt/train/000002.tar").unlink()
    with pytest.raises(BadSample, match="sample .* of train/000002.tar: the shard is missing"):
        reader.load(250)
    reader.load(150)


def test_short_shard_makes_the_samples_behind_its_end_bad(root):
    reader = open_reader(root)
    path = root / "digits_lt/train/000000.tar"
    cut = int(reader.index.offsets[50]) + 3
    path.write_bytes(path.read_bytes()[:cut])
    reader.read(49)
    for row in (50, 51, 99):
        with pytest.raises(BadSample, match=f"the shard ends at byte {cut}"):
            reader.read(row)


def test_passing_error_is_tried_again(root, monkeypatch):
    reader = open_reader(root, pauses=(0.0, 0.0, 0.0))
    real, calls = _LocalFile.read, []

    def fails_three_times(self, offset, length):
        calls.append(offset)
        if len(calls) <= 3:
            raise OSError("stale handle")
        return real(self, offset, length)

    monkeypatch.setattr(_LocalFile, "read", fails_three_times)
    assert len(reader.read(5)) == reader.index.lengths[5]
    assert len(calls) == 4


def test_lasting_error_stops_with_shard_and_key(root, monkeypatch):
    reader = open_reader(root, pauses=(0.0, 0.0, 0.0))

    def fails(self, offset, length):
        raise OSError("stale handle")

    monkeypatch.setattr(_LocalFile, "read", fails)
    with pytest.raises(
        OSError, match="digits-.*train/000000.tar after 4 attempts: stale handle"
    ):
        reader.read(5)


def test_short_read_of_a_whole_shard_is_not_proof(root, monkeypatch):
    reader = open_reader(root, pauses=(0.0,))
    real = _LocalFile.read
    monkeypatch.setattr(_LocalFile, "read", lambda self, o, n: real(self, o, n)[:-1])
    with pytest.raises(OSError, match="after 2 attempts"):
        reader.read(5)


def test_few_files_stay_open(root):
    reader = open_reader(root, "eval", max_open=2)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for row in range(0, 1797, 50):
        reader.read(row)
    assert len(reader._files) == 2
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_threads_may_share_a_reader(root):
    reader = open_reader(root, "eval", max_open=2)
    rows = np.random.default_rng(0).permutation(1797)[:600]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(reader.load, rows))
    for row, image in zip(rows[::20], images[::20], strict=True):
        np.testing.assert_array_equal(image, reader.load(row))


def test_forked_processes_may_share_a_reader(root):
    reader = open_reader(root)
    reader.read(3)
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(reader.read(3)))
    child.start()
    assert receive.recv() == reader.read(3)
    child.join()


def test_reader_and_bad_sample_pickle(root):
    reader = open_reader(root)
    reader.read(0)
    again = sent(reader)
    np.testing.assert_array_equal(again.load(9), reader.load(9))
    bad = sent(BadSample("k", "train/000000.tar", "gone"))
    assert str(bad) == "sample k of train/000000.tar: gone"


def test_remote_shards_read_the_same(root):
    memory = fsspec.filesystem("memory")
    memory.put(str(root / "digits_lt"), "/shards-test/digits_lt", recursive=True)
    try:
        index = open_index("memory://shards-test", "digits_lt", "train")
        reader = ShardReader("memory://shards-test", "digits_lt", index)
        here = open_reader(root)
        for row in (0, 427, 101, 5):
            np.testing.assert_array_equal(reader.load(row), here.load(row))
        memory.rm("/shards-test/digits_lt/train/000003.tar")
        with pytest.raises(BadSample, match="train/000003.tar: the shard is missing"):
            reader.load(300)
        memory.pipe("/shards-test/digits_lt/train/000002.tar", b"short")
        with pytest.raises(BadSample, match="the shard ends at byte 5"):
            reader.load(200)
    finally:
        memory.rm("/shards-test", recursive=True)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_decode_gives_channels_first(kind):
    pixels = np.full((8, 8, 3), [200, 100, 50], np.uint8)
    image = decode(encode(Image.fromarray(pixels), kind), 3, 8)
    assert image.shape == (3, 8, 8)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[:, 4, 4].astype(int), [200, 100, 50], atol=4)


def test_decode_gives_the_channels_asked_for():
    grey = encode(Image.new("L", (8, 8), 7))
    np.testing.assert_array_equal(decode(grey, 3, 8), np.full((3, 8, 8), 7))
    colour = encode(Image.new("RGB", (8, 8), (7, 7, 7)))
    np.testing.assert_array_equal(decode(colour, 1, 8), np.full((1, 8, 8), 7))


def test_what_is_no_image_of_the_size_is_a_value_error():
    whole = encode(Image.effect_noise((8, 8), 50))
    for data in (b"", b"not an image", whole[: len(whole) // 2], whole[:20]):
        with pytest.raises(ValueError, match="does not decode"):
            decode(data, 1, 8)
    with pytest.raises(ValueError, match=r"\(8, 8\) pixels, not 16 x 16"):
        decode(whole, 1, 16)
    huge = whole[:16] + (60000).to_bytes(4, "big") * 2 + whole[24:]
    with pytest.raises(ValueError, match="does not decode"):
        decode(huge, 1, 8)
