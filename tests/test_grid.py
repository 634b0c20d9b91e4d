import io

import numpy as np
import pytest
import torch
from PIL import Image

from cbdm_scale.sampling.grid import class_grid, png_bytes

LABELS = torch.tensor([0, 1, 1, 2, 1])
GREY = (torch.arange(5, dtype=torch.uint8) * 10).view(5, 1, 1, 1).expand(5, 1, 2, 2)


def test_rows_are_classes_in_order_and_columns_their_first_images():
    picture = np.asarray(class_grid(GREY, LABELS, order=[1, 2, 0], columns=2))
    assert picture.shape == (3 * 3 + 1, 2 * 3 + 1)
    assert [[int(picture[3 * r + 1, 3 * c + 1]) for c in range(2)] for r in range(3)] == [
        [10, 20],
        [30, 255],
        [0, 255],
    ]
    assert (picture[1:3, 1:3] == 10).all() and (picture[0] == 255).all()


def test_colours_keep_their_channels():
    images = torch.tensor([250, 100, 3], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    picture = class_grid(images, torch.tensor([0]), order=[0], columns=1)
    assert picture.mode == "RGB" and picture.getpixel((1, 1)) == (250, 100, 3)


def test_scale_repeats_every_pixel():
    small = np.asarray(class_grid(GREY, LABELS, order=[1], columns=3))
    large = np.asarray(class_grid(GREY, LABELS, order=[1], columns=3, scale=4))
    assert np.array_equal(large, small.repeat(4, axis=0).repeat(4, axis=1))


def test_the_png_is_the_picture():
    picture = class_grid(GREY, LABELS, order=[1, 0], columns=3)
    data = png_bytes(picture)
    assert data == png_bytes(picture)
    with Image.open(io.BytesIO(data)) as read:
        assert read.format == "PNG" and np.array_equal(np.asarray(read), np.asarray(picture))


def test_images_in_model_range_are_refused():
    with pytest.raises(ValueError, match=r"uint8, got \(5, 1, 2, 2\) torch.float32"):
        class_grid(GREY.float(), LABELS, order=[0])
