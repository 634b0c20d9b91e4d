"""The node's cache: below its limit, never without what is read, whole or not there."""

import os
import time
from pathlib import Path

import pytest

from cbdm_scale.data.cache import PARTIAL, CacheFolder, open_cache
from cbdm_scale.data.options import DataConfig

KB = 1000


@pytest.fixture
def cache(tmp_path):
    folder = CacheFolder(tmp_path, 10 * KB)
    folder.make()
    return folder


def put(cache, name, size=3 * KB):
    """A file of the cache, which nobody holds any more."""
    os.close(hold_new(cache, name, size))


def hold_new(cache, name, size=3 * KB):
    descriptor = cache.create(name, size)
    assert descriptor is not None
    os.pwrite(descriptor, b"x" * size, 0)
    cache.publish(name, descriptor)
    time.sleep(0.002)  # so that its time of use is its own
    return descriptor


def here(cache):
    return {path.name for path in cache.path.iterdir()} - {"lock"}


def test_the_file_unused_for_longest_makes_room(cache):
    for name in "abc":
        put(cache, name)
    os.close(cache.hold("a"))  # used just now
    put(cache, "d")
    assert here(cache) == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in cache.path.iterdir()) <= cache.limit


def test_what_is_open_stays(cache):
    descriptor = hold_new(cache, "a")
    for name in "bcdef":
        put(cache, name)
    assert "a" in here(cache)
    assert os.pread(descriptor, 3, 0) == b"xxx"
    os.close(descriptor)
    for name in "ghi":
        put(cache, name)
    assert here(cache) == {"g", "h", "i"}


def test_a_limit_below_a_single_file_is_named(cache):
    with pytest.raises(ValueError, match=r"data.cache_gb \(1e-05\) .*single file.*Try --data"):
        cache.create("a", 11 * KB)
    assert here(cache) == set()


def test_a_limit_below_what_is_open_is_named(cache):
    held = [hold_new(cache, name) for name in "abc"]
    with pytest.raises(ValueError, match=r"data.cache_gb .* open on this node at once.* Try"):
        cache.create("d", 3 * KB)
    assert here(cache) == {"a", "b", "c"}
    for descriptor in held:
        os.close(descriptor)


def test_a_partial_file_counts_and_is_nobodys_to_take(cache):
    mine = cache.create("a", 6 * KB)
    assert cache.hold("a") is None, "it is not whole yet"
    with pytest.raises(ValueError, match="open on this node"):
        cache.create("b", 6 * KB)
    cache.discard("a", mine)
    assert here(cache) == set()


def test_a_kill_leaves_nothing_that_is_taken_for_a_shard(cache):
    child = os.fork()
    if not child:
        cache.create("a", 6 * KB)
        os._exit(0)  # without publishing: as a kill does
    os.waitpid(child, 0)
    assert here(cache) == {"a" + PARTIAL}
    assert cache.hold("a") is None
    put(cache, "b", 6 * KB)  # cleans up for its own room
    assert here(cache) == {"b"}
    child = os.fork()
    if not child:
        cache.create("c", 3 * KB)
        os._exit(0)
    os.waitpid(child, 0)
    put(cache, "c", 3 * KB)
    assert (cache.path / "c").read_bytes() == b"x" * 3 * KB


def test_the_folder_of_the_option_is_made_and_a_bad_one_named(tmp_path):
    cache = open_cache(DataConfig(cache=str(tmp_path / "deep" / "er"), cache_gb=2))
    assert cache == CacheFolder(tmp_path / "deep" / "er", 2_000_000_000)
    assert cache.path.is_dir()
    assert open_cache(DataConfig(cache_gb=0)) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"data.cache \(.*file/x\) cannot be used.*--data.cache"
    ):
        open_cache(DataConfig(cache=str(tmp_path / "file" / "x")))


def test_the_default_folder_is_this_users(monkeypatch, tmp_path):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path))
    assert open_cache(DataConfig()).path == Path(tmp_path) / "shards"
