"""photos16: which images it takes of CIFAR-10, and how small they become."""

import numpy as np
import pytest
from test_data_prep_cifar import make_folder

from data_prep.options import Options
from data_prep.readers.cifar import CIFAR10
from data_prep.readers.long_tail import long_tail_counts
from data_prep.readers.photos import LARGEST, halved, read_photos16


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Of 200 random images a class in the place of 5,000."""
    folder = tmp_path_factory.mktemp("cifar10")
    make_folder(folder, CIFAR10, is_python=False, per_file=400)
    return read_photos16("photos16", Options(source=str(folder)))


def test_it_has_500_down_to_5_images_a_class():
    counts = long_tail_counts(LARGEST, 10, 0.01)
    assert counts == (500, 299, 179, 107, 64, 38, 23, 13, 8, 5) and sum(counts) == 1_236


def test_the_real_images_of_the_metrics_are_none_of_the_training_images(source):
    train, others = source.splits["train"], source.splits["eval"]
    assert not set(train.keys) & set(others.keys)
    assert np.bincount(train.labels).tolist() == list(long_tail_counts(200, 10, 0.01))
    assert (np.bincount(train.labels) + np.bincount(others.labels) == 200).all()


def test_a_pixel_is_the_mean_of_four(source):
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    assert halved(image)[..., 0].tolist() == [[2, 4], [10, 12]]  # 2.5, 4.5, 10.5, 12.5
    assert source.image_size == 16 and source.splits["train"].image(0).shape == (16, 16, 3)
