import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from shard_tools import contents, make_digits
from source_tools import pixels_of

from cbdm_scale.data.groups import class_groups
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from data_prep.checking.verify import verify
from data_prep.readers.digits import read_digits_lt
from data_prep.writing.encode import Encoding
from data_prep.writing.shards import write_dataset


def test_digits_are_scaled_to_bytes_and_long_tailed():
    from sklearn.datasets import load_digits

    source = read_digits_lt()
    everything = pixels_of(source.splits["eval"])
    assert everything.shape == (1797, 1, 8, 8)
    np.testing.assert_allclose(everything[:, 0], load_digits().images * 255 / 16, atol=0.5)
    assert (everything.min(), everything.max()) == (0, 255)
    train = source.splits["train"]
    assert np.bincount(train.labels).tolist() == [174, 104, 62, 37, 22, 13, 8, 4, 2, 2]
    assert len(set(train.keys)) == 428
    assert set(train.keys) < set(source.splits["eval"].keys)


def test_same_source_gives_the_same_bytes(tmp_path):
    make_digits(tmp_path / "a")
    make_digits(tmp_path / "b")
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first == second
    assert len(first) == 3 + 5 + 18


def test_nothing_of_the_moment_is_in_the_tars(tmp_path):
    make_digits(tmp_path)
    with tarfile.open(tmp_path / "digits_lt/train/000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert [m.name.rpartition(".")[2] for m in members[:4]] == ["cls", "png", "cls", "png"]


def test_no_shard_is_one_class_and_seeds_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("CBDM_SCALE_CACHE", str(tmp_path / "cache"))
    make_digits(tmp_path / "a")
    make_digits(tmp_path / "b", seed=1)
    first = open_index(str(tmp_path / "a"), "digits_lt", "eval")
    shards = np.split(first.labels, np.cumsum(first.shard_sizes)[:-1])
    assert all(len(np.unique(labels)) == 10 for labels in shards[:-1])
    second = open_index(str(tmp_path / "b"), "digits_lt", "eval")
    assert [first.key(i) for i in range(50)] != [second.key(i) for i in range(50)]


def test_wrong_images_of_a_reader_are_named(tmp_path):
    source = read_digits_lt()
    for changes, message in [
        ({"image_size": 9}, "is .8, 8, 1. uint8, not .9, 9, 1. uint8"),
        ({"class_names": tuple("012345678")}, "has label 9, outside 0..8"),
    ]:
        folder = tmp_path / message[:5]
        folder.mkdir()
        with pytest.raises(ValueError, match=message):
            write_dataset(
                replace(source, **changes), folder, samples_per_shard=1000, seed=0, log=print
            )


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_a_generated_image_has_its_record_beside_it_and_groups_are_of_the_real_ones(
    tmp_path, form
):
    source = read_digits_lt()
    train = source.splits["train"].take(np.arange(0, 400, 10))
    about = [None if i % 3 else {"run": f"r{i}"} for i in range(40)]
    splits = {"train": replace(train, about=about)}
    written = write_dataset(
        replace(source, splits=splits),
        tmp_path / "digits_lt",
        samples_per_shard=25,
        seed=0,
        log=lambda line: None,
        encoding=Encoding(format=form),
    )
    real = np.bincount(train.labels[[a is None for a in about]], minlength=10).tolist()
    manifest = read_manifest(str(tmp_path), "digits_lt")
    assert manifest == written and list(manifest.real_counts) == real
    assert manifest.groups == class_groups(real)
    assert not verify(str(tmp_path), "digits_lt").wrong, "every image lies where the index says"
    found = {}
    for shard in sorted((tmp_path / "digits_lt/train").iterdir()):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    found[member.name] = json.loads(tar.extractfile(member).read())
    keys = zip(train.keys, about, strict=True)
    assert found == {f"{key}.json": told for key, told in keys if told}
    chosen = splits["train"].take(np.array([3, 4]))
    assert chosen.about == [{"run": "r3"}, None] and chosen.is_real.tolist() == [False, True]
