"""Real and generated images as one set: which are added, and when each is seen."""

from itertools import islice

import numpy as np
import pytest
import torch
from process_tools import sent
from recognition_tools import shades

from cbdm_scale.data.loader import load_batches
from cbdm_scale.data.options import DataConfig
from cbdm_scale.data.plan import SamplePlan
from cbdm_scale.recognition.mixed_images import (
    Augmented,
    MixedImages,
    check_added,
    not_in_training,
    select_added,
)

REAL = shades(0, [0, 0, 0, 0, 0, 1, 1, 2])
FAKE = shades(100, [0, 1, 2] * 5)
BATCH = 6


def both():
    return MixedImages([REAL, FAKE])


def load(steps, rank=0, size=1, flip=True, seed=3):
    images = both()
    augmented = Augmented(images, SamplePlan([images.count], seed), seed, flip)
    batches = load_batches(
        augmented, DataConfig(), start=0, batch_size=BATCH, rank=rank, world_size=size
    )
    try:
        return list(islice(batches, steps))
    finally:
        batches.close()


def test_numbers_go_through_the_sets_in_turn():
    images = sent(both())
    assert images.count == 23 and images.labels.tolist() == [*REAL.given, *FAKE.given]
    got = images.read([22, 0, 8, 7, 9])
    assert got.shape == (5, 1, 8, 8) and got.dtype == np.uint8
    assert got[:, 0, 3, 3].tolist() == [114, 0, 100, 7, 101]


def test_every_image_real_or_generated_comes_once_an_epoch():
    seen = [int(key) for batch in load(23) for key in batch.keys]  # 138 = 6 epochs of 23
    for epoch in range(6):
        assert sorted(seen[epoch * 23 : (epoch + 1) * 23]) == list(range(23))
    assert seen[:23] != seen[23:46]


def test_a_batch_holds_the_pixels_and_labels_of_its_images():
    for batch in load(8):
        rows = np.array(batch.keys, int)
        assert batch.y.tolist() == both().labels[rows].tolist()
        expected = torch.from_numpy(both().read(rows)[:, 0, 4, 4]).float() / 127.5 - 1
        torch.testing.assert_close(batch.x0[:, 0, 4, 4], expected)  # no crop reaches the middle


def test_a_loader_process_sends_whole_pixels():
    images = both()
    batch = Augmented(images, SamplePlan([23], 3), 3, True)[torch.arange(6)]
    assert batch.x.dtype == torch.uint8
    assert torch.equal(sent(batch).x0, load(1)[0].x0)


@pytest.mark.parametrize("size", [2, 3])
def test_batches_are_the_same_for_any_number_of_workers(size):
    whole = load(10)
    parts = [load(10, rank, size) for rank in range(size)]
    for step, batch in enumerate(whole):
        for rank in range(size):
            mine = parts[rank][step]
            assert torch.equal(mine.x0, batch.x0[rank::size])
            assert torch.equal(mine.y, batch.y[rank::size])


def test_crops_take_every_offset_and_half_of_the_images_are_mirrored():
    """Of an image with one bright pixel, a border of 8 / 8 = 1 gives 3 x 3 places."""
    pixels = np.zeros((1, 1, 8, 8), np.uint8)
    pixels[0, 0, 3, 2] = 255

    class OneDot:
        count, labels = 3600, np.zeros(3600, np.int64)

        def read(self, numbers):
            return np.repeat(pixels, len(numbers), axis=0)

    augmented = Augmented(MixedImages([OneDot()]), SamplePlan([3600], 0), 0, flip=True)
    x0 = augmented[torch.arange(3600)].x0
    places = (x0 > 0).flatten(1).nonzero()[:, 1]
    found, counts = places.unique(return_counts=True)
    expected = {r * 8 + c for r in (2, 3, 4) for c in (1, 2, 3, 4, 5, 6)}
    assert set(found.tolist()) == expected and x0.amin() == -1
    assert counts.min() > 140 and counts.max() < 260  # 200 each
    still = Augmented(MixedImages([OneDot()]), SamplePlan([3600], 0), 0, flip=False)
    columns = (still[torch.arange(200)].x0 > 0).flatten(1).nonzero()[:, 1] % 8
    assert set(columns.tolist()) == {1, 2, 3}


# ----------------------------------------------------------------------------
# Which generated images are added.


def counts(rows):
    return np.bincount(FAKE.labels[rows], minlength=3).tolist()


def test_all_adds_every_image_and_a_number_the_first_of_each_class():
    assert select_added(FAKE.labels, [5, 2, 1], "all").tolist() == list(range(15))
    assert select_added(FAKE.labels, [5, 2, 1], "2").tolist() == [0, 1, 2, 3, 4, 5]


def test_fill_tops_every_class_up_to_the_largest():
    rows = select_added(FAKE.labels, [5, 2, 1], "fill")
    assert counts(rows) == [0, 3, 4]
    assert (np.array([5, 2, 1]) + counts(rows)).tolist() == [5, 5, 5]


def test_too_few_generated_images_are_an_error_with_the_command_that_makes_more():
    with pytest.raises(
        ValueError, match="needs 6 generated images of class 0, the sets hold 5"
    ):
        select_added(FAKE.labels, [5, 2, 1], "6")
    with pytest.raises(ValueError, match="--num-images 27"):
        select_added(FAKE.labels, [10, 2, 1], "fill")


@pytest.mark.parametrize("text", ["0", "-3", "half", ""])
def test_what_is_no_number_of_images_is_named(text):
    with pytest.raises(ValueError, match="fill .as many as the largest class lacks"):
        select_added(FAKE.labels, [5, 2, 1], text)


def test_wrong_labels_and_sizes_are_named():
    check_added("set.npz", FAKE, (1, 8, 8), 3)
    with pytest.raises(ValueError, match=r"add \(set.npz\): 5 of 15 images have label 2"):
        check_added("set.npz", FAKE, (1, 8, 8), 2)
    with pytest.raises(ValueError, match=r"1 of 2 images have no label \(-1\)"):
        check_added("set.npz", shades(0, [0, -1]), (1, 8, 8), 2)
    with pytest.raises(ValueError, match=r"are \(1, 8, 8\) .* data set are \(3, 32, 32\)"):
        check_added("set.npz", FAKE, (3, 32, 32), 3)


def test_test_images_that_are_training_images_are_left_out():
    assert not_in_training(shades(5, [0, 0]), shades(3, [0] * 6)) == [0, 1, 4, 5]
