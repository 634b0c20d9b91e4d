import hashlib

import numpy as np
import pytest
from process_tools import sent
from source_tools import pixels_of

from data_prep.options import Options
from data_prep.readers.imagenet_counts import imagenet_lt_counts
from data_prep.readers.synthetic import EVAL, paint, read_synthetic


def read(classes=None, counts="3", resolution=16, seed=0, **options):
    given = {"classes": classes, "counts": counts, "resolution": resolution, "seed": seed}
    return read_synthetic("synthetic", Options(out="", **given, **options))


def test_imagenet_lt_counts_give_its_115846_images():
    source = read(counts="imagenet-lt")
    train, held = source.splits["train"], source.splits["eval"]
    assert len(train.labels) == len(train.keys) == len(set(train.keys)) == 115_846
    assert np.bincount(train.labels).tolist() == list(imagenet_lt_counts().values())
    assert np.bincount(held.labels).tolist() == [50] * 1000
    assert train.image(115_845).shape == (16, 16, 3)


def test_counts_are_one_number_a_class_or_one_for_all():
    assert np.bincount(read(counts="9,4,1").splits["train"].labels).tolist() == [9, 4, 1]
    assert np.bincount(read(classes=4).splits["train"].labels).tolist() == [3] * 4
    assert np.bincount(read(classes=4).splits["eval"].labels).tolist() == [3] * 4
    held = read(counts="9,4", eval_per_class=7).splits["eval"]
    assert np.bincount(held.labels).tolist() == [7, 7]


def test_an_image_is_a_function_of_seed_class_number_and_split_alone():
    source = sent(read(counts="9,4,2", resolution=8))
    train, held = source.splits["train"], source.splits["eval"]
    np.testing.assert_array_equal(train.image(10), paint(0, 1, 1, 8))
    np.testing.assert_array_equal(held.image(0), paint(0, 0, 0, 8, purpose=EVAL))
    images = [paint(s, c, i, 8, purpose=p) for s, c, i, p in np.ndindex(2, 2, 2, 2)]
    assert len({image.tobytes() for image in images}) == 16


def test_the_bytes_are_the_same_on_every_machine():
    """Exact arithmetic only; a change here is a change of everybody's synthetic sets."""
    images = b"".join(paint(7, c, 3, 32).tobytes() for c in range(20))
    assert hashlib.sha256(images).hexdigest()[:16] == "2f9eda42d5591442"


def test_classes_can_be_told_apart_by_a_few_colours():
    source = read(classes=10, counts="30", resolution=32)

    def features(split):
        pixels = pixels_of(source.splits[split]).astype(float)
        middle = pixels[:, :, 8:24, 8:24]
        return np.concatenate([pixels.mean((2, 3)), middle.mean((2, 3))], axis=1)

    train, labels = features("train"), source.splits["train"].labels
    means = np.stack([train[labels == c].mean(0) for c in range(10)])
    nearest = ((features("eval")[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == source.splits["eval"].labels).mean() > 0.9


@pytest.mark.parametrize("resolution", [1, 2, 7, 100])
def test_any_resolution_will_do(resolution):
    image = paint(0, 0, 0, resolution)
    assert image.shape == (resolution, resolution, 3) and image.dtype == np.uint8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": "many"}, r"--counts \(many\) is neither imagenet_lt, nor a number"),
        ({"counts": "1,,2"}, r"--counts \(1,,2\) is neither"),
        ({"counts": "5"}, r"--counts \(5\) needs --classes"),
        ({"counts": "5", "classes": 1}, "--classes must be from 2 to"),
        ({"counts": "5,4", "classes": 3}, r"--classes \(3\) is not the 2 of --counts"),
        ({"counts": "imagenet_lt", "classes": 10}, r"--classes \(10\) is not the 1,000"),
        ({"counts": "5,0"}, r"--counts \(5,0\) must give every class an image"),
        ({"counts": "999999999,2"}, r"at most 1,000,000,000"),
        ({"counts": "5,4", "eval_per_class": 0}, "--eval-per-class must be at least 1, got 0"),
    ],
)
def test_wrong_values_name_option_value_and_way_out(options, message):
    with pytest.raises(ValueError, match=message):
        read(**options)
