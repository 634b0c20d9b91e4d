"""A recognition run without a cluster: its sets, its files, its network as an extractor."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from extractor_tools import load_extractor
from PIL import Image
from recognition_tools import stripes

from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.options import DataConfig
from cbdm_scale.metrics.classifier import METADATA, load_classifier
from cbdm_scale.metrics.sources import SplitImages
from cbdm_scale.models.resnet import ResNet32
from cbdm_scale.recognition.confusion import scores_by_group
from cbdm_scale.recognition.fit import FitConfig
from cbdm_scale.recognition.mixed_images import MixedImages
from cbdm_scale.recognition.sets import find_added, find_sets, find_test, open_added
from cbdm_scale.recognition.worker import Task, train_and_test
from cbdm_scale.training.distributed import World
from data_prep.readers.digits import read_digits_lt
from data_prep.writing.shards import write_dataset


def generated(path, per_class=3, size=8, channels=1, labels=None):
    """An .npz in the layout of the sample command."""
    given = np.arange(10 * per_class) % 10 if labels is None else np.array(labels)
    pixels = np.random.default_rng(0).integers(0, 256, (len(given), size, size, channels))
    np.savez(path, arr_0=pixels.astype(np.uint8), arr_1=given)
    return str(path)


# ----------------------------------------------------------------------------
# What is learnt and tested on.


def test_the_digits_are_tested_on_what_was_not_trained_on(digits_root):
    test, words = find_test(digits_root, read_manifest(digits_root, "digits_lt"))
    train = SplitImages(digits_root, "digits_lt", "train")
    known = {image.tobytes() for image in train.read(range(train.count))}
    seen = test.read(range(test.count))
    assert not any(image.tobytes() in known for image in seen)
    assert 1797 - 428 - 20 < test.count <= 1797 - 428 and len(test.labels) == test.count
    assert "no test split" in words and "are training images and left out" in words


def test_a_test_split_is_used_as_it_is(tmp_path):
    source = read_digits_lt()
    few = source.splits["train"].take(np.arange(0, 428, 20))  # training images
    source = replace(source, splits=source.splits | {"test": few})
    (tmp_path / "digits_lt").mkdir()
    write_dataset(
        source, tmp_path / "digits_lt", samples_per_shard=900, seed=0, log=lambda _: None
    )
    test, words = find_test(str(tmp_path), read_manifest(str(tmp_path), "digits_lt"))
    assert test.count == 22 and words == "22 images of test"


def test_generated_images_are_found_checked_and_chosen(digits_root, tmp_path):
    manifest = read_manifest(digits_root, "digits_lt")
    one = generated(tmp_path / "one.npz")
    two = generated(tmp_path / "two.npz", per_class=200)
    assert find_added([], "all", manifest) is None
    assert find_added([one, two], "all", manifest).count == 30 + 2000
    filled = find_added([one, two], "fill", manifest)
    total = np.bincount(filled.labels, minlength=10) + manifest.counts["train"]
    assert total.tolist() == [174] * 10
    prints = {
        find_added(sets, "2", manifest).fingerprint for sets in ([one], [two], [two, one])
    }
    assert len(prints) == 3


def test_real_and_generated_images_are_one_set_and_said_in_words(digits_root, tmp_path):
    sets = find_sets(digits_root, "digits_lt", [generated(tmp_path / "a.npz")], "all")
    assert sets.learnt == "428 real images and 30 generated ones (3 to 3 a class)"
    assert sets.train.count == 458 and sets.train.labels[428:].tolist() == list(range(10)) * 3
    alone = find_sets(digits_root, "digits_lt", [], "all")
    assert alone.learnt == "428 real images" and alone.train.count == 428


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 16}, r"images are \(1, 16, 16\)"),
        ({"channels": 3}, r"images are \(3, 8, 8\)"),
        ({"labels": [0, 10]}, "1 of 2 images have label 10, the data set has classes 0..9"),
        ({"labels": [0, -1]}, "no label"),
        ({"labels": [[0, 1]] * 2}, "4 labels for 2 images"),
    ],
)
def test_a_set_that_does_not_fit_the_data_is_named(digits_root, tmp_path, options, words):
    path = generated(tmp_path / "bad.npz", **options)
    with pytest.raises(ValueError, match=words) as error:
        find_added([path], "all", read_manifest(digits_root, "digits_lt"))
    assert path in str(error.value)


def test_generated_images_have_the_labels_of_their_names(tmp_path):
    for name in ("0-cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "0.png")
    assert open_added(str(tmp_path), ("cat", "bird", "dog")).labels.tolist() == [0, 2]
    with pytest.raises(ValueError, match="add: .* has classes .* has not: 0-cat, dog. Its"):
        open_added(str(tmp_path), ("dogs", "cat"))


def test_no_set_to_fill_up_with_is_an_error(digits_root):
    with pytest.raises(ValueError, match="Give a set with --add SET"):
        find_added([], "fill", read_manifest(digits_root, "digits_lt"))


def test_the_folder_of_a_set_means_its_largest_form(tmp_path):
    (tmp_path / "set.json").write_text("{}")
    with pytest.raises(ValueError, match="was not given out yet.*--format npz"):
        open_added(str(tmp_path), ())
    generated(tmp_path / "images-30.npz")
    generated(tmp_path / "images-100.npz", per_class=10)
    assert open_added(str(tmp_path), ()).count == 100
    assert open_added(str(tmp_path / "images-30.npz"), ()).count == 30


# ----------------------------------------------------------------------------
# One rank.


def task_in(folder, **changes):
    task = Task(
        folder=str(folder),
        train=MixedImages([stripes(40), stripes(24, seed=5)]),
        test=stripes(30, seed=9),
        channels=1,
        image_size=8,
        class_names=("across", "down"),
        groups=("many", "few"),
        fit=FitConfig(batch_size=16, total_images=64, log_every=32),
        data=DataConfig(flip=False),
        seeds=(3, 4),
    )
    return replace(task, **changes)


def run(task):
    said = []
    outcome = train_and_test(
        World(), lambda *_: None, said.append, task=task, tracking_uri="", run_id=""
    )
    return outcome, said


def test_a_run_leaves_scores_and_networks_and_does_not_train_a_finished_seed_again(tmp_path):
    outcome, _ = run(task_in(tmp_path))
    assert outcome["how"] == "finished" and outcome["images_shown"] == 64
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        *("seed-3.safetensors", "seed-3.json", "seed-4.safetensors", "seed-4.json"),
        *("classifier.safetensors", "result.json"),
    }
    tables = [
        json.loads((tmp_path / f"seed-{s}.json").read_text())["confusion"] for s in (3, 4)
    ]
    recalls = [scores_by_group(torch.tensor(t), ("many", "few"))["few"].recall for t in tables]
    spread = outcome["scores"]["few"]["recall"]
    assert spread["mean"] == pytest.approx(sum(recalls) / 2)
    assert (tmp_path / "seed-3.safetensors").read_bytes() == (
        tmp_path / "classifier.safetensors"
    ).read_bytes()

    before = (tmp_path / "seed-4.safetensors").read_bytes()
    (tmp_path / "seed-4.json").unlink()  # killed before it was finished
    again, said = run(task_in(tmp_path))
    assert "seed 3: there already" in said and "seed 4: there already" not in said
    assert again["scores"] == outcome["scores"]
    assert (tmp_path / "seed-4.safetensors").read_bytes() == before


def test_the_stored_network_is_the_one_that_was_tested_and_an_extractor(tmp_path):
    task = task_in(tmp_path, seeds=(0,))
    run(task)
    path = tmp_path / "classifier.safetensors"
    net = load_classifier(path)
    assert isinstance(net, ResNet32) and not net.training
    extractor = load_extractor(f"classifier:{path}", "", class_names=task.class_names)
    turned = load_extractor(f"classifier:{path}", "", class_names=task.class_names[::-1])
    x = torch.from_numpy(task.test.read(range(30)))
    found = extractor(x)
    assert found.pool.shape == (30, 64) and extractor.dim == 64
    torch.testing.assert_close(found.pool, net.features(x / 127.5 - 1))
    table = json.loads((tmp_path / "seed-0.json").read_text())["confusion"]
    assert torch.equal(turned(x).logits, found.logits.flip(1))
    right = found.logits.argmax(dim=1).numpy() == task.test.labels
    assert right.sum() == table[0][0] + table[1][1]
    with pytest.raises(ValueError, match=r"was trained on images \(1, 8, 8\)"):
        extractor(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_a_network_of_another_kind_is_refused_by_name(tmp_path):
    run(task_in(tmp_path, seeds=(0,)))
    data = (tmp_path / "classifier.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert json.loads(header["__metadata__"][METADATA])["network"] == "resnet32"
    strange = data.replace(b"resnet32", b"resnet99")
    with pytest.raises(ValueError, match="network 'resnet99'; this package knows small"):
        load_classifier(strange)


def test_an_error_that_the_user_can_mend_comes_back_in_words(tmp_path):
    fit = FitConfig(batch_size=16, total_images=64, lr=1e30, warmup=0.0)
    outcome, _ = run(task_in(tmp_path, fit=fit))
    assert "Try a lower --train.lr" in outcome["error"]
    assert not Path(tmp_path, "result.json").exists()
