import io

import numpy as np
import pytest
import torch
from PIL import Image

from cbdm_scale.sampling.grid import class_grid, grid_order, grid_png, png_bytes, with_words

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


def dark_rows(picture, width):
    """Which rows of pixels have a letter within so many columns from the left."""
    return (np.asarray(picture.convert("L"))[:, :width] < 128).any(axis=1)


def test_every_row_is_named_beside_it_and_the_grid_itself_is_what_it_was():
    grid = class_grid(GREY, LABELS, order=[1, 0], columns=3, scale=16)
    named = with_words(grid, ["keyboard (120)", ""])
    left = named.width - grid.width
    assert np.array_equal(np.asarray(named)[:, left:], np.asarray(grid))
    words = dark_rows(named, left)
    assert words[: grid.height // 2].any() and not words[grid.height // 2 :].any()


@pytest.mark.parametrize(
    ("name", "like"),
    [("Käfer", "Kafer"), ("鼠", "class 1"), ("", "class 1"), ("x" * 40, "x" * 29 + "…")],
)
def test_a_name_that_the_font_has_no_letters_for_is_written_as_it_can_be(name, like):
    pictures = [
        grid_png(GREY, LABELS, [0, 1], ["a", said], counts=(4, 1)) for said in (name, like)
    ]
    assert pictures[0] == pictures[1]


def test_a_grid_of_some_classes_says_how_many_there_are():
    counts, names = list(range(40, 0, -1)), [f"class {c}" for c in range(40)]
    pictures = [
        Image.open(io.BytesIO(grid_png(GREY, LABELS, order, names, counts)))
        for order in (range(40), grid_order(counts))
    ]
    rows = [round(picture.height / (16 * 3)) for picture in pictures]
    assert rows == [40, 31], "a line of words above 30 rows"
    assert dark_rows(pictures[1], 200)[:24].any() and not dark_rows(pictures[0], 8)[:4].any()
