"""Decoded once per node: the same batches, and nothing that a power cut left half written."""

import os

import numpy as np
import pytest
import torch
from loader_tools import SHARD, N, damage, load, open_images, shard_path, write_digits

from cbdm_scale.data.augment import Augmentation
from cbdm_scale.data.cache import CacheFolder
from cbdm_scale.data.decoded import DecodedSplit
from cbdm_scale.data.index import open_index
from cbdm_scale.data.loader import PlannedImages
from cbdm_scale.data.shards import ShardReader

SLOT = 8 * 8 + 4


@pytest.fixture
def root(tmp_path):
    (tmp_path / "shards").mkdir()
    write_digits(tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def cache(tmp_path):
    folder = CacheFolder(tmp_path / "cache", 10**6)
    folder.make()
    return folder


def open_reader(root, cache):
    index = open_index(str(root), "digits_lt", "train")
    return ShardReader(str(root), "digits_lt", index, cache=cache, pauses=())


def pixel_file(cache):
    (path,) = cache.path.glob("*.pixels")
    return path


def test_later_epochs_and_other_processes_get_the_same_batches_from_the_file(root, cache):
    expected = load(open_images(root, flip=True), 9)
    again = open_images(root, flip=True, reader=open_reader(root, cache))
    for batches in load(again, 9), load(again, 9, num_workers=1):
        for a, b in zip(expected, batches, strict=True):
            assert torch.equal(a.x0, b.x0) and torch.equal(a.y, b.y) and a.keys == b.keys
    assert pixel_file(cache).stat().st_size == N * SLOT


def test_a_decoded_image_needs_its_shard_no_more(root, cache):
    reader = open_reader(root, cache)
    whole, bad = reader.load_batch(np.arange(N))
    assert not bad
    for shard in range(N // SHARD):
        shard_path(root, shard).unlink()
    index = reader.index
    reader = ShardReader(str(root), "digits_lt", index, cache=cache, pauses=())
    pixels, bad = reader.load_batch(np.arange(N)[::-1])
    assert not bad and np.array_equal(pixels[::-1], whole)


@pytest.mark.parametrize("at", [0, 30, SLOT - 1])
def test_a_slot_that_is_not_right_is_decoded_again(root, cache, at):
    reader = open_reader(root, cache)
    whole, _ = reader.load_batch(np.arange(N))
    before = pixel_file(cache).read_bytes()
    with open(pixel_file(cache), "r+b") as file:
        file.seek(5 * SLOT + at)
        file.write(bytes([before[5 * SLOT + at] ^ 1]))
    pixels, _ = reader.load_batch(np.arange(N))
    assert np.array_equal(pixels, whole)
    assert pixel_file(cache).read_bytes() == before


def test_an_image_of_zeros_is_told_from_a_slot_never_written(cache):
    decoded = DecodedSplit.open(cache, "zeros.pixels", 3, 16)
    pixels = np.ones((3, 16), np.uint8)
    decoded.put(1, np.zeros(16, np.uint8))
    assert decoded.fill(np.array([0, 1, 2]), pixels) == [0, 2]
    assert not pixels[1].any()


def test_a_bad_sample_is_never_kept(root, cache):
    damage(root, 3)
    images = open_images(root, reader=open_reader(root, cache))
    for _ in range(2):
        batch = images[torch.arange(N)]
        assert len(batch.substitutions) == 1
    raw = pixel_file(cache).read_bytes()
    assert not any(raw[3 * SLOT : 4 * SLOT]) and any(raw[4 * SLOT : 5 * SLOT])


def test_a_split_that_does_not_fit_is_not_kept(root, tmp_path):
    cache = CacheFolder(tmp_path / "small", N * SLOT - 1)
    cache.make()
    batch = open_images(root, reader=open_reader(root, cache))[torch.arange(N)]
    assert torch.equal(batch.x0, open_images(root)[torch.arange(N)].x0)
    assert os.listdir(cache.path) == []


def test_a_cache_too_small_for_a_remote_set_that_is_mixed_as_a_whole_is_named(root, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(root / "digits_lt"), "/decoded-test/digits_lt", recursive=True)
    try:
        size = shard_path(root, 0).stat().st_size
        cache = CacheFolder(tmp_path / "small", 3 * size)
        cache.make()
        images = open_images(root)
        reader = open_reader("memory://decoded-test", cache)
        with pytest.raises(ValueError, match=r"data.cache_gb .* the 4 shards that are read at"):
            PlannedImages(reader, images.plan, Augmentation(flip=True))
        streams = open_images(root, num_streams=1)
        images = PlannedImages(reader, streams.plan, Augmentation())
        for a, b in zip(load(streams, 6), load(images, 6), strict=True):
            assert torch.equal(a.x0, b.x0) and not b.substitutions
    finally:
        memory.rm("/decoded-test", recursive=True)
