"""Data sets that are written to a store: a real S3 endpoint over HTTP, and others of fsspec."""

import uuid

import fsspec
import pytest
from s3_tools import ACCOUNT, client, s3_server
from shard_tools import contents, make_digits
from source_tools import watched

from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.shards import ShardReader
from data_prep.prepare import Options, prepare


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(server, monkeypatch):
    """(client, name) of an empty bucket of the endpoint that s3:// now goes to."""
    endpoint = {"AWS_ENDPOINT_URL": "http://{}:{}".format(*server)}
    for name, value in (ACCOUNT | endpoint).items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    client(server).create_bucket(Bucket=name)
    return client(server), name


def stored(bucket):
    s3, name = bucket
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=name)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    files = {key: s3.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}
    folders = {key for key in keys if key.endswith("/")}  # Arrow's, empty
    assert not any(files[key] for key in folders)
    return {key: files[key] for key in files.keys() - folders}


def write(url, **changes):
    said = []
    options = {"classifier": False, "samples_per_shard": 500} | changes
    manifest = prepare(
        "digits-lt", Options(out=url, **{"workers": 0} | options), log=said.append
    )
    return manifest, said


def test_store_holds_the_bytes_of_a_local_folder(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    root = f"s3://{bucket[1]}/sets"
    manifest, said = write(root)
    make_digits(tmp_path / "a", samples_per_shard=500)
    assert stored(bucket) == {f"sets/{k}": v for k, v in contents(tmp_path / "a").items()}
    assert said[-1].endswith(f"--dataset digits_lt --eval.extractor none --data.root {root}")
    assert read_manifest(root, "digits_lt") == manifest
    index = open_index(root, "digits_lt", "train")
    assert ShardReader(root, "digits_lt", index).load(3).shape == (1, 8, 8)


def test_writing_to_a_store_continues(bucket, tmp_path, monkeypatch):
    root = f"s3://{bucket[1]}/sets"
    with monkeypatch.context() as patch:
        source, _ = watched(bad=(0,))
        patch.setattr("data_prep.prepare.read_source", lambda *_: source)
        with pytest.raises(ValueError, match=f"1 image .*{root}/digits_lt.bad.txt"):
            write(root)
        assert "sets/digits_lt/dataset.json" not in stored(bucket)
        with pytest.raises(ValueError, match="unfinished"):
            read_manifest(root, "digits_lt")
        source, images = watched()
        patch.setattr("data_prep.prepare.read_source", lambda *_: source)
        _, said = write(root)
    assert any("shards are there already: continuing" in line for line in said)
    assert len(images.asked) <= 501
    make_digits(tmp_path / "a", samples_per_shard=500)
    assert stored(bucket) == {f"sets/{k}": v for k, v in contents(tmp_path / "a").items()}


def test_what_is_on_a_store_is_not_replaced_unasked():
    root = f"memory://{uuid.uuid4().hex}"
    manifest, _ = write(root)
    again, said = write(root)
    assert again == manifest and "already there" in said[-5]
    with pytest.raises(ValueError, match="is there already, made of .*--force-overwrite"):
        write(root, seed=1)
    assert read_manifest(root, "digits_lt") == manifest
    other, _ = write(root, seed=1, samples_per_shard=1000, force_overwrite=True)
    assert read_manifest(root, "digits_lt") == other != manifest
    fs = fsspec.filesystem("memory")
    assert len(fs.find(root.removeprefix("memory:/"))) == 3 + 1 + 2
    fs.rm_file(f"{root.removeprefix('memory:/')}/digits_lt/dataset.json")
    with pytest.raises(ValueError, match="without a dataset.json, so it is unfinished"):
        write(root)


def test_folder_of_the_user_on_a_store_is_never_replaced():
    root = f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").pipe_file(f"{root}/digits_lt/thesis.tex", b"")
    with pytest.raises(ValueError, match="not a data set of ours .it holds thesis.tex"):
        write(root, force_overwrite=True)


@pytest.mark.slow
def test_feature_classifier_goes_to_the_store_too():
    root = f"memory://{uuid.uuid4().hex}"
    write(root, classifier=True)
    from cbdm_scale.metrics.classifier import load_classifier

    raw = fsspec.filesystem("memory").cat_file(f"{root}/digits_lt/classifier.safetensors")
    assert load_classifier(raw)
