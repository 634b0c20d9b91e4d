"""Writing that is killed, continues, meets bad images, or meets another writer."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import source_tools
from ray_tools import wait_for
from shard_tools import contents, make_digits
from source_tools import few_digits

from cbdm_scale.cluster.connect import connect
from cbdm_scale.cluster.options import ClusterConfig
from cbdm_scale.data.manifest import read_manifest
from data_prep.checking.verify import verify
from data_prep.writing.encode import Encoding
from data_prep.writing.shards import write_dataset

TESTS = Path(__file__).parent
HANGING = """
import sys
from pathlib import Path
import data_prep.prepare
from cbdm_scale.diffusion.rng import permutation
from shard_tools import make_digits
from source_tools import few_digits, watched
out = Path(sys.argv[1])
stop = int(permutation(0, "shards/eval", 600)[400])
source, _ = watched(few_digits(), stop=stop, sign=out / "sign")
data_prep.prepare.read_source = lambda *_: source
make_digits(out)
"""


def hang(out):
    """A process that has written some shards and hangs in the middle of another one."""
    out.mkdir()
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    words = [sys.executable, "-c", HANGING, str(out)]
    child = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": path})
    wait_for((out / "sign").exists)
    (out / "sign").unlink()
    return child


def watched(**changes):
    return source_tools.watched(few_digits(), **changes)


def write(out, source=None, **changes):
    out.mkdir(exist_ok=True)
    said = []
    options = {"samples_per_shard": 100, "seed": 0, "bad_list": out} | changes
    source = source or few_digits()
    manifest = write_dataset(source, out / source.name, log=said.append, **options)
    return manifest, said


def test_a_second_writer_is_told_and_killed_writing_continues_to_the_same_bytes(
    tmp_path, monkeypatch
):
    child = hang(tmp_path / "a")
    with pytest.raises(ValueError, match=rf"process {child.pid} on .* is writing .*digits_lt"):
        make_digits(tmp_path / "a")
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert os.listdir(tmp_path / "a") == [".digits_lt.unfinished"]
    assert len(list((tmp_path / "a").rglob("*.tar"))) == 9  # 5 of train, 4 of eval
    source, images = watched()
    monkeypatch.setattr("data_prep.prepare.read_source", lambda *_: source)
    make_digits(tmp_path / "a")
    assert len(images.asked) == 200
    assert os.listdir(tmp_path / "a") == ["digits_lt"]
    make_digits(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"samples_per_shard": 90}, {"encoding": Encoding(format="webp")}]
)
def test_other_options_start_over_and_say_so(tmp_path, changes):
    source, images = watched(bad=(5,))
    with pytest.raises(ValueError, match="1 image of digits_lt cannot be read"):
        write(tmp_path / "a", source)
    source, images = watched()
    manifest, said = write(tmp_path / "a", source, **changes)
    assert any("starting over" in line for line in said)
    assert sorted(images.asked) == list(range(600))
    assert write(tmp_path / "b", **changes)[0] == manifest
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_damaged_record_or_tar_is_made_again(tmp_path):
    with pytest.raises(ValueError, match="1 image of digits_lt"):
        write(tmp_path / "a", watched(bad=(5,))[0])
    records = sorted((tmp_path / "a").rglob("*.parquet"))
    records[7].write_bytes(records[7].read_bytes()[:-50])
    with open(tmp_path / "a/digits_lt/eval/000001.tar", "ab") as tar:
        tar.write(b"more")
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# ----------------------------------------------------------------------------
# Bad images.


def test_bad_images_are_left_out_named_and_counted(tmp_path):
    for out in ("a", "b"):
        manifest, said = write(tmp_path / out, watched(bad=(3, 500), allow_missing=2)[0])
    assert any("2 images cannot be read and are left out" in line for line in said)
    assert manifest.num_images("eval") == 598
    labels = few_digits().splits["eval"].labels
    counts = np.bincount(np.delete(labels, [3, 500]), minlength=10)
    assert manifest.counts["eval"] == tuple(counts)
    assert (tmp_path / "a/digits_lt.bad.txt").read_text() == (
        f"eval\t{labels[3]}\tdigits-000003\tis no image\n"
        f"eval\t{labels[500]}\tdigits-000500\tis no image\n"
    )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert read_manifest(str(tmp_path / "a"), "digits_lt") == manifest


def test_more_bad_images_than_allowed_keep_what_is_done(tmp_path):
    bad = tuple(range(100, 110))
    message = r"10 images .* and 9 may .*digits_lt.bad.txt.*raise --allow-missing by 1"
    with pytest.raises(ValueError, match=message):
        write(tmp_path, watched(bad=bad, allow_missing=9)[0])
    assert not (tmp_path / "digits_lt/dataset.json").exists()
    source, images = watched(bad=bad, allow_missing=10)
    assert write(tmp_path, source)[0].num_images("eval") == 590
    assert set(images.asked) == set(bad)


def test_bad_images_that_were_mended_are_taken_up(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        write(tmp_path / "a", watched(bad=(3, 500))[0])
    source, images = watched()
    write(tmp_path / "a", source)
    assert len(images.asked) < 300
    write(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_class_without_a_training_image_is_an_error_always(tmp_path):
    source = few_digits()
    train = source.splits["train"]
    bad = tuple(np.flatnonzero(train.labels == 9))
    broken = replace(train, image=type(watched()[1])(train, bad))
    source = replace(source, splits=source.splits | {"train": broken}, allow_missing=1000)
    with pytest.raises(ValueError, match=r"1 classes .* lost all their training images \(9\)"):
        write(tmp_path, source)


def test_shard_of_bad_images_alone_is_no_shard(tmp_path):
    source, images = watched(bad=tuple(range(600)), allow_missing=2000)
    with pytest.raises(ValueError, match="no image of the eval split"):
        write(tmp_path / "a", source)
    shard = tuple(images.asked[:100])
    manifest, _ = write(tmp_path / "a", watched(bad=shard, allow_missing=100)[0])
    assert read_manifest(str(tmp_path / "a"), "digits_lt").num_images("eval") == 500
    assert not (tmp_path / "a/digits_lt/eval/000000.tar").exists()


# ----------------------------------------------------------------------------
# Workers.


@pytest.fixture
def cluster(work):
    """Connected to the tests' cluster, whose workers unpickle sources of this folder."""
    import ray

    connect(ClusterConfig(workers=1))
    ray.cloudpickle.register_pickle_by_value(source_tools)
    yield
    ray.cloudpickle.unregister_pickle_by_value(source_tools)
    ray.shutdown()


@pytest.mark.ray
def test_any_number_of_workers_gives_the_same_bytes(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = {"bad": (3, 500), "allow_missing": 2}
    for workers in (0, 2):
        write(Path(str(workers)), watched(**bad)[0], workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")
    assert len(contents(tmp_path / "0")) == 4 + 11
    raw = bytearray((tmp_path / "0/digits_lt/eval/000000.tar").read_bytes())
    raw[20_000] ^= 1
    (tmp_path / "0/digits_lt/eval/000000.tar").write_bytes(raw)
    alone, together = (verify("0", "digits_lt", workers=n, log=str) for n in (0, 2))
    assert alone == together and alone.wrong
