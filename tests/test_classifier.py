"""The small classifier: its file, and its training in data_prep."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save

from cbdm_scale.metrics.classifier import (
    METADATA,
    SmallClassifier,
    class_places,
    load_classifier,
    save_classifier,
)
from data_prep.writing.classifier import default_epochs, train_classifier


def stripes(n=240, seed=0):
    """Noisy 8 x 8 images of two classes: stripes across, and stripes down."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    across = np.tile(np.array([0, 200] * 4)[:, None], (1, 8))
    images = np.where(labels[:, None, None] == 0, across, across.T)
    noisy = images + rng.integers(0, 56, (n, 8, 8))
    return noisy[:, None].astype(np.uint8), labels.astype(np.int64)


def forged(config):
    return save({"w": torch.zeros(1)}, {METADATA: json.dumps(config)})


CONFIG = {"version": 1, "image_channels": 1, "image_size": 8, "num_classes": 2}


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 64), (1, 28), (1, 4)])
def test_every_image_size_gives_64_features_with_few_weights(channels, size):
    net = SmallClassifier(image_channels=channels, image_size=size, num_classes=10).eval()
    features, logits = net(torch.zeros(2, channels, size, size))
    assert features.shape == (2, 64) and logits.shape == (2, 10)
    assert 100_000 < sum(p.numel() for p in net.parameters()) < 300_000


def test_a_saved_classifier_loads_as_itself(tmp_path):
    net = SmallClassifier(image_channels=3, image_size=16, num_classes=5)
    net(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))  # batch norm
    path = tmp_path / "classifier.safetensors"
    path.write_bytes(save_classifier(net))
    x = torch.linspace(-1, 1, 768).view(1, 3, 16, 16)
    net.eval()
    for source in (path, str(path), path.read_bytes()):
        loaded = load_classifier(source)
        assert not loaded.training
        assert torch.equal(loaded(x)[0], net(x)[0]) and torch.equal(loaded(x)[1], net(x)[1])


def test_a_file_says_which_logit_is_whose():
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=3)
    named, plain = save_classifier(net, ("cat", "dog", "7")), save_classifier(net)
    assert class_places(named, ("cat", "dog", "7"), "it") == [0, 1, 2]
    assert class_places(named, ("07", "cat", "dog"), "it") == [2, 0, 1]
    assert class_places(plain, ("07", "cat", "dog"), "it") == [0, 1, 2], "nobody knows better"
    for names, words in [
        (("7", "cat", "bird"), "it lacks bird and has dog besides. .* prepare"),
        (("7", "cat"), "it has dog besides"),
        (("7", "cat", "bird", "dog", "fish"), "it lacks bird, fish. Label fidelity would be"),
    ]:
        with pytest.raises(ValueError, match=f"it knows other classes .*: {words}"):
            class_places(named, names, "it")
    with pytest.raises(ValueError, match="it knows 3 classes and the data set has 2"):
        class_places(plain, ("cat", "dog"), "it")


def test_training_learns():
    images, labels = stripes()
    file, metrics = train_classifier(images, labels, ("a", "b"), epochs=6)
    assert class_places(file, ("b", "a"), "it") == [1, 0]
    assert metrics["accuracy_train"] > 0.95 and metrics["accuracy_held_out"] > 0.9
    fresh, y = stripes(seed=1)
    _, logits = load_classifier(file)(torch.from_numpy(fresh) / 127.5 - 1)
    assert (logits.argmax(1).numpy() == y).mean() > 0.9


def test_the_accuracies_are_those_of_the_stored_weights():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (240, 1, 8, 8)).astype(np.uint8)  # hard: nothing to learn
    labels = rng.integers(0, 5, 240)
    file, metrics = train_classifier(images, labels, tuple("abcde"), epochs=3)
    _, logits = load_classifier(file)(torch.from_numpy(images) / 127.5 - 1)
    order = torch.randperm(240, generator=torch.Generator().manual_seed(0)).numpy()
    hit = (logits.argmax(1).numpy() == labels)[order]
    held_out, train = hit[:24].mean(), hit[24:].mean()
    assert metrics == {"accuracy_train": train, "accuracy_held_out": held_out}
    assert train != held_out


def test_the_same_images_and_seed_give_the_same_bytes_whatever_the_global_seed():
    images, labels = stripes(60)
    files = []
    for run, seed in enumerate([0, 0, 1]):
        torch.manual_seed(run)
        files.append(
            train_classifier(images, labels, ("a", "b"), epochs=1, seed=seed, flip=True)[0]
        )
    assert files[0] == files[1] != files[2]


def test_a_small_set_gives_the_same_bytes_for_any_number_of_threads():
    images, labels = stripes(200)
    before, files = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            files.append(train_classifier(images, labels, ("a", "b"), epochs=1)[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert files[0] == files[1]


def test_training_leaves_the_global_generator_alone():
    images, labels = stripes(20)
    before = torch.random.get_rng_state()
    train_classifier(images, labels, ("a", "b"), epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_epoch_prints_a_line(capsys):
    images, labels = stripes(20)
    train_classifier(images, labels, ("a", "b"), epochs=3)
    out = capsys.readouterr().out
    assert "epoch 1/3, loss " in out and "epoch 3/3, loss " in out and "held_out" in out


def test_too_few_images_to_hold_any_out_have_no_held_out_score():
    images, labels = stripes(6)
    _, metrics = train_classifier(images, labels, ("a", "b"), epochs=1)
    assert list(metrics) == ["accuracy_train"]


def test_small_sets_get_more_epochs():
    assert [default_epochs(n) for n in (1_617, 25_000, 45_000, 1_000_000)] == [20, 16, 8, 8]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 1, 8, 8), np.float32), np.zeros(4, np.int64), "uint8, got .* float32"),
        (np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int64), r"\(N, C, H, H\) uint8"),
        (np.zeros((4, 1, 8, 8), np.uint8), np.zeros(3, np.int64), "4 images and 3 labels"),
        (np.zeros((1, 1, 8, 8), np.uint8), np.zeros(1, np.int64), "at least 2 images"),
        (np.zeros((4, 1, 8, 8), np.uint8), np.full(4, 2), r"in 0\.\.1, got 2\.\.2"),
    ],
)
def test_images_that_cannot_be_learnt_from_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        train_classifier(images, labels, ("a", "b"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is damaged"),
        (b"no safetensors at all", "is damaged"),
        (save({"w": torch.zeros(1)}), "is not a classifier of this package"),
        (forged({"image_size": 8}), "is not a classifier of this package"),
        (forged([1]), "is not a classifier of this package"),
        (forged({**CONFIG, "class_names": "ab"}), "is not a classifier of this package"),
        (forged({**CONFIG, "class_names": ["a"]}), "is not a classifier of this package"),
        (forged({**CONFIG, "version": 2}), "has format version 2; this package reads 1"),
        (forged(CONFIG), "does not fit this package's classifier"),
        (forged({**CONFIG, "depth": 3}), "does not fit this package's classifier"),
    ],
)
def test_files_that_are_no_classifier_are_named_with_the_way_out(data, message):
    with pytest.raises(ValueError, match=f"the classifier {message}.*prepare"):
        load_classifier(data)


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(
        ValueError, match=r"no\.safetensors, which does not exist.*made the shards"
    ):
        load_classifier(tmp_path / "no.safetensors")
