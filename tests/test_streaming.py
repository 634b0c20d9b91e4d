"""Shards from a real S3 endpoint and from web servers, over HTTP on loopback, with faults."""

import functools
import hashlib
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from loader_tools import BATCH, SHARD, N, load, open_images, write_digits
from s3_tools import client, s3_proxy, s3_server, upload

from benchmarks.faulty_proxy import Rule, faulty_proxy
from cbdm_scale.data.cache import CacheFolder
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.shards import BadSample, ShardReader
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import StoreError

HERE = Path(__file__).parent
QUICK = (0.01, 0.01, 0.01)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    root = tmp_path_factory.mktemp("streaming")
    write_digits(root)
    return root


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


@pytest.fixture
def proxy(server):
    with s3_proxy(server) as proxy:
        yield proxy


@pytest.fixture
def bucket(server, local):
    """The digits in a bucket of their own; its name."""
    return upload(server, local)


@pytest.fixture
def cache(tmp_path):
    folder = CacheFolder(tmp_path / "cache", 10**8)
    folder.make()
    return folder


def open_reader(root, cache, pauses=QUICK):
    index = open_index(root, "digits_lt", "train")
    return ShardReader(root, "digits_lt", index, cache=cache, pauses=pauses)


def images_of(reader):
    return open_images(reader.root, reader=reader, flip=True)


def names(cache):
    return sorted(path.name for path in cache.path.iterdir() if path.suffix == ".tar")


def test_a_run_from_s3_gets_the_batches_of_the_local_folder(local, proxy, bucket, cache):
    root = f"s3://{bucket}/shards"
    assert read_manifest(root, "digits_lt") == read_manifest(str(local), "digits_lt")
    expected = load(open_images(local, flip=True), 6)
    for _ in range(2):  # the second time from the node's disk
        for a, b in zip(expected, load(images_of(open_reader(root, cache)), 6), strict=True):
            assert torch.equal(a.x0, b.x0) and torch.equal(a.y, b.y)
            assert (a.keys, b.substitutions) == (b.keys, ())
    assert proxy.gets("train/") == N // SHARD, "every shard is downloaded once"
    assert len(names(cache)) == N // SHARD


def test_shards_are_brought_before_they_are_read(proxy, bucket, cache):
    reader = open_reader(f"s3://{bucket}/shards", cache)
    images = open_images(reader.root, reader=reader, num_streams=1)
    later = images.plan.rows(np.array([SHARD]))  # the second shard of the epoch
    images[torch.arange(SHARD // 2, SHARD // 2 + 1)]  # reads the first one only
    name = reader.index.shard_name(reader.index.shard_of[later[0]])
    until(lambda: len(names(cache)) == 2)
    assert proxy.gets(name) == 1


def test_the_storage_of_runs_goes_to_the_same_endpoint(server, proxy, bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server))
    store = Storage(f"s3://{bucket}/runs")
    store.write_bytes("a/b", b"content")
    assert store.read_bytes("a/b") == b"content"
    assert store.list() == ["a"]
    client(server).head_object(Bucket=bucket, Key="runs/a/b")


@pytest.mark.parametrize("kind", ["500", "503", "429", "cut", "slow"])
def test_what_may_pass_is_tried_again(local, proxy, bucket, cache, kind):
    reader = open_reader(f"s3://{bucket}/shards", cache)
    proxy.rules = [Rule("000001.tar", kind, times=2)]
    assert (reader.load(20) == open_reader(str(local), None).load(20)).all()
    assert proxy.gets("000001.tar") == (1 if kind == "slow" else 3)


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_what_does_not_pass_stops_the_run_and_replaces_nothing(proxy, bucket, cache, kind):
    reader = open_reader(f"s3://{bucket}/shards", cache)
    proxy.rules = [Rule("000001.tar", kind)]
    with pytest.raises(StoreError, match=r"cannot read .*000001.tar after 4 attempts: .*AWS"):
        reader.load(20)
    assert proxy.gets("000001.tar") == 4
    with pytest.raises(StoreError):
        images_of(reader)[torch.arange(N)]
    assert not list(cache.path.glob("*.partial"))


def test_a_request_that_is_refused_is_not_tried_again(proxy, bucket, cache):
    reader = open_reader(f"s3://{bucket}/shards", cache)
    proxy.rules = [Rule("000001.tar", "403", methods=("GET", "HEAD"))]
    with pytest.raises(StoreError, match=r"cannot read .*000001.tar, it is refused: .*DENIED"):
        reader.load(20)
    assert sum("000001.tar" in path for _, path in proxy.seen) == 1


@pytest.mark.slow
def test_a_stalled_connection_is_cut_and_tried_again(local, proxy, bucket, cache):
    reader = open_reader(f"s3://{bucket}/shards", cache)
    proxy.rules = [Rule("000001.tar", "stall", times=1)]
    assert (reader.load(20) == open_reader(str(local), None).load(20)).all()
    assert not proxy.released.is_set()


def test_a_store_that_is_away_for_a_moment_opens_all_the_same(proxy, bucket):
    proxy.rules = [Rule(".parquet", "500", times=1), Rule("dataset.json", "cut", times=1)]
    read_manifest(f"s3://{bucket}/shards", "digits_lt")


def test_a_data_set_that_may_not_be_read_is_not_called_missing(proxy, bucket):
    proxy.rules = [Rule("dataset.json", "403", methods=("GET", "HEAD"))]
    with pytest.raises(StoreError, match="cannot read .*dataset.json, it is refused"):
        read_manifest(f"s3://{bucket}/shards", "digits_lt")


def test_wrong_bytes_once_are_fetched_again(local, proxy, bucket, cache):
    reader = open_reader(f"s3://{bucket}/shards", cache)
    proxy.rules = [Rule("000001.tar", "wrong", times=1)]
    assert (reader.load(20) == open_reader(str(local), None).load(20)).all()
    assert proxy.gets("000001.tar") == 2


def test_wrong_bytes_twice_are_proof_and_its_samples_are_replaced(proxy, bucket, cache):
    reader = open_reader(f"s3://{bucket}/shards", cache)
    proxy.rules = [Rule("000001.tar", "wrong")]
    batch = images_of(reader)[torch.arange(N)]
    assert len(batch.substitutions) == SHARD
    for substitution in batch.substitutions:
        assert "of train/000001.tar: the shard does not have the sha256" in substitution.reason
    assert proxy.gets("000001.tar") == 2, "a bad shard is not fetched for each of its samples"
    assert len(names(cache)) == N // SHARD - 1


def test_a_shard_deleted_while_training_is_named_and_replaced(server, proxy, bucket, cache):
    reader = open_reader(f"s3://{bucket}/shards", cache)
    images = images_of(reader)
    (batch,) = load(images, 1)  # every shard is on this node now
    client(server).delete_object(Bucket=bucket, Key="shards/digits_lt/train/000002.tar")
    assert not any(b.substitutions for b in load(images, 3)), "this node has it"
    shutil.rmtree(cache.path)
    cache.make()
    images = images_of(ShardReader(reader.root, "digits_lt", reader.index, cache=cache))
    found = [s for batch in load(images, N * 3 // BATCH) for s in batch.substitutions]
    assert len(found) == 3 * SHARD
    assert all("of train/000002.tar: the shard is missing" in s.reason for s in found)


def test_a_short_shard_in_the_store_is_proof(server, proxy, bucket, cache):
    reader = open_reader(f"s3://{bucket}/shards", cache)
    key = "shards/digits_lt/train/000003.tar"
    client(server).put_object(Bucket=bucket, Key=key, Body=b"short")
    with pytest.raises(BadSample, match="the shard is not whole: it has 5 bytes, not"):
        reader.load(50)


# ----------------------------------------------------------------------------
# Several processes of a node.

READ = f"""
import hashlib, os, sys
sys.path.insert(0, {str(HERE.parent)!r})
from pathlib import Path
from cbdm_scale.data.cache import CachedShards, CacheFolder
from cbdm_scale.storage.remote import Store, open_url
fs, native, path = open_url(sys.argv[1] + "/digits_lt", "data.root", once=True)
shards = CachedShards(CacheFolder(Path(sys.argv[2]), 10**8), Store(fs, native), path)
print("ready", flush=True)
sys.stdin.readline()
descriptor = shards.open("train/000001.tar")
print(hashlib.sha256(os.pread(descriptor, 10**8, 0)).hexdigest(), flush=True)
"""


def start_reader(bucket, cache):
    process = subprocess.Popen(
        [sys.executable, "-c", READ, f"s3://{bucket}/shards", str(cache.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process


def finish(process):
    try:
        return process.communicate("\n", timeout=60)[0].split()
    finally:
        process.kill()


def test_processes_share_a_download_and_survive_a_kill(local, proxy, bucket, cache):
    """Three at once download once; the one at it is killed, and another one takes over."""
    tar = (local / "digits_lt/train/000001.tar").read_bytes()
    readers = [start_reader(bucket, cache) for _ in range(3)]
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"
    proxy.rules = [Rule("000001.tar", "stall", times=1)]
    readers[0].stdin.write("\n")
    readers[0].stdin.flush()
    until(lambda: proxy.gets("000001.tar") == 1)
    for reader in readers[1:]:
        reader.stdin.write("\n")
        reader.stdin.flush()
    os.kill(readers[0].pid, signal.SIGKILL)
    assert [finish(reader) for reader in readers[1:]] == [[hashlib.sha256(tar).hexdigest()]] * 2
    finish(readers[0])
    assert proxy.gets("000001.tar") == 2, "one download by the killed, one by the others"
    assert len(names(cache)) == 1 and not list(cache.path.glob("*.partial"))


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ----------------------------------------------------------------------------
# Web servers.


@pytest.fixture
def web(local):
    """A plain web server of Python, without byte ranges, behind a faulty proxy."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def list_directory(self, path):
            self.send_error(404)

    handler = functools.partial(Quiet, directory=str(local))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with faulty_proxy(*server.server_address[:2]) as proxy:
            yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_web_server_without_listings_or_ranges_will_do(local, web, cache):
    assert read_manifest(web.url, "digits_lt") == read_manifest(str(local), "digits_lt")
    web.rules = [Rule("000001.tar", "cut", times=1), Rule("000002.tar", "500", times=1)]
    expected = load(open_images(local, flip=True), 4)
    for a, b in zip(expected, load(images_of(open_reader(web.url, cache)), 4), strict=True):
        assert torch.equal(a.x0, b.x0) and a.keys == b.keys
    assert web.gets("000001.tar") == web.gets("000002.tar") == 2


def test_what_a_web_server_does_not_have_is_named(local, web, cache):
    with pytest.raises(ValueError, match="holds no data set cub200: http://.* does not exist"):
        read_manifest(web.url, "cub200")
    reader = open_reader(web.url, cache)
    web.rules = [Rule("000001.tar", "404"), Rule("000002.tar", "403")]
    with pytest.raises(BadSample, match="of train/000001.tar: the shard is missing"):
        reader.load(20)
    with pytest.raises(StoreError, match="000002.tar, it is refused: HTTP Error 403"):
        reader.load(40)
