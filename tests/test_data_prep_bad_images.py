"""Files that are no training image: refused with a reason, and without a warning."""

import warnings

import numpy as np
import pytest
from image_tools import encoded, png_header
from PIL import Image

from data_prep.readers.images import load_image
from data_prep.source import BadImage


def refusal(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage) as caught:
            load_image(data, resolution=8)
    return str(caught.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_file_that_is_cut_off_is_bad(form):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), form)
    for share in (0.02, 0.3, 0.9):
        assert (
            "not decode" in (said := refusal(data[: int(len(data) * share)]))
            or "not an" in said
        )


def test_no_bytes_and_text_are_bad():
    assert "empty" in refusal(b"")
    assert "not an image" in refusal(b"<html>404 Not Found</html>")
    assert "not an image" in refusal(b"\xff\xd8\xff")


def test_a_bomb_is_refused_from_its_header():
    assert "too large" in refusal(png_header(50_000, 50_000))
    assert "too large" in refusal(png_header(10_000, 10_000))  # where Pillow only warns


def test_pillow_without_its_own_limit_changes_nothing(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert "50000 x 50000" in refusal(png_header(50_000, 50_000))


def test_enlarging_a_thread_of_pixels_is_refused():
    with pytest.raises(BadImage, match="too long"):
        load_image(encoded(Image.new("L", (60_000, 1))), resolution=64)


def test_postscript_is_not_run():
    assert "not an image" in refusal(encoded(Image.new("RGB", (8, 8)), "EPS"))


def test_wider_integers_and_floats_are_refused():
    wide = Image.fromarray(np.full((8, 8), 70000, np.int32))
    assert "beyond 16 bits" in refusal(encoded(wide, "TIFF"))
    floats = Image.fromarray(np.zeros((8, 8), np.float32))
    assert "floats" in refusal(encoded(floats, "TIFF"))
