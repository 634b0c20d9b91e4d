import numpy as np
import pytest

from data_prep.options import Options
from data_prep.readers.long_tail import long_tail_counts, long_tail_rows, with_tail
from data_prep.readers.synthetic import read_synthetic


def test_counts_are_those_of_the_literature():
    cifar10 = long_tail_counts(5000, 10, 0.01)
    assert cifar10 == (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    assert sum(cifar10) == 12_406
    cifar100 = long_tail_counts(500, 100, 0.01)
    assert (cifar100[0], cifar100[-1], sum(cifar100)) == (500, 5, 10_847)


def test_digits_keep_two_of_the_rarest():
    counts = long_tail_counts(174, 10, 0.01, at_least=2)
    assert counts == (174, 104, 62, 37, 22, 13, 8, 4, 2, 2)
    assert sum(counts) == 428


def test_imbalance_one_is_balanced():
    assert long_tail_counts(7, 3, 1.0) == (7, 7, 7)


@pytest.mark.parametrize("imbalance", [0.0, -1.0, 1.5, float("nan")])
def test_imbalance_outside_its_range_is_refused(imbalance):
    with pytest.raises(ValueError, match="--imbalance must be above 0 and .* Try 0.01"):
        long_tail_counts(10, 3, imbalance)


def test_class_left_without_an_image_is_named():
    with pytest.raises(ValueError, match=r"--imbalance \(0.001\) leaves class 7 .*0.0101"):
        long_tail_counts(100, 10, 0.001)


def test_rows_are_what_the_global_generator_gives():
    labels = np.random.default_rng(3).integers(0, 4, 500)
    counts = (90, 40, 10, 3)
    state = np.random.get_state()
    try:
        np.random.seed(0)
        expected = []
        for c, n in enumerate(counts):
            idx = np.where(labels == c)[0]
            np.random.shuffle(idx)
            expected.append(idx[:n])
    finally:
        np.random.set_state(state)
    np.testing.assert_array_equal(
        long_tail_rows(labels, counts, seed=0), np.concatenate(expected)
    )


def test_another_seed_keeps_other_images_in_the_same_numbers():
    labels = np.repeat(np.arange(3), 50)
    first, second = (long_tail_rows(labels, (20, 10, 5), seed) for seed in (0, 1))
    assert set(first) != set(second)
    np.testing.assert_array_equal(np.bincount(labels[second]), [20, 10, 5])
    assert len(set(second)) == 35


def test_class_with_too_few_images_is_named():
    with pytest.raises(ValueError, match="class 1 has 2 images, fewer than the 3"):
        long_tail_rows(np.array([0, 0, 0, 1, 1]), (3, 3), 0)


def test_step_profile_keeps_half_of_the_classes_whole():
    assert long_tail_counts(500, 4, 0.1, profile="step") == (500, 500, 50, 50)
    assert long_tail_counts(500, 5, 0.1, profile="step") == (500, 500, 50, 50, 50)
    assert long_tail_counts(500, 2, 0.1, profile="step") == (500, 50)
    assert long_tail_counts(500, 2, 0.1) == (500, 50)


def test_one_class_has_no_tail():
    with pytest.raises(
        ValueError, match=r"--long-tail \(0.1\) needs at least 2 classes, not 1"
    ):
        long_tail_counts(10, 1, 0.1, option="--long-tail")


def synthetic(counts):
    return read_synthetic("x", Options(out="", counts=counts, resolution=8))


@pytest.mark.parametrize(("profile", "kept"), [("exp", [40, 12, 4]), ("step", [40, 4, 4])])
def test_a_balanced_source_gets_a_long_tail_and_keeps_its_other_splits(profile, kept):
    whole = synthetic("40,41,43")
    tailed = with_tail(whole, Options(long_tail=0.1, profile=profile, seed=3))
    train = tailed.splits["train"]
    assert np.bincount(train.labels).tolist() == kept
    assert tailed.splits["eval"] is whole.splits["eval"]
    assert set(train.keys) < set(whole.splits["train"].keys)
    row = whole.splits["train"].keys.index(train.keys[-1])
    np.testing.assert_array_equal(train.image(-1), whole.splits["train"].image(row))
    assert tailed.made.startswith(whole.made)
    assert f"{'exponential' if profile == 'exp' else 'step'} long tail 0.1" in tailed.made
    assert "the classes have 40 to 43 images" in tailed.notes[-1]


def test_a_source_that_has_a_long_tail_gets_no_other():
    with pytest.raises(ValueError, match=r"--long-tail \(0.1\) needs a balanced source.*4 "):
        with_tail(synthetic("40,20,4"), Options(long_tail=0.1))
