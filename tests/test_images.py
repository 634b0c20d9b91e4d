"""The quick PNG decoder gives Pillow's pixels, and leaves to Pillow what is not plain."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from cbdm_scale.data.images import _decode_any, _decode_png, decode

GENERATOR = np.random.default_rng(0)


def encode(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def picture(channels, size=33):
    """Noise over a slope, so that every PNG filter is met."""
    slope = np.add.outer(np.arange(size), 2 * np.arange(size))[..., None]
    noise = GENERATOR.integers(0, 60, (size, size, channels))
    pixels = (slope + noise).astype(np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_plain_images_are_pillows_bit_for_bit(channels, level):
    for size in 8, 32, 33:
        data = encode(picture(channels, size), compress_level=level)
        quick = _decode_png(data, channels, size)
        assert quick is not None
        assert np.array_equal(quick, _decode_any(data, channels, size))
        assert decode(data, channels, size).shape == (channels, size, size)


def test_other_images_are_left_to_pillow():
    rgb = picture(3)
    others = {
        "palette": encode(rgb.quantize(16)),
        "alpha": encode(rgb.convert("RGBA")),
        "16 bit": encode(Image.fromarray(np.arange(33 * 33, dtype=np.uint16).reshape(33, 33))),
        "grey for colour": encode(picture(1)),
        "transparent colour": encode(rgb, transparency=(1, 2, 3)),
        "1 bit": encode(rgb.convert("1")),
    }
    for name, data in others.items():
        assert _decode_png(data, 3, 33) is None, name
        assert np.array_equal(
            decode(data, 3, 33), _decode_any(data, 3, 33).transpose(2, 0, 1)
        ), name


def test_a_png_with_any_bit_flipped_is_pillows_to_refuse():
    """libspng lets much pass; the chunks' own checksums do not."""
    data = encode(picture(3))
    for at in range(8, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 4
        assert _decode_png(bytes(broken), 3, 33) is None, at


def test_a_png_whose_pixels_end_early_is_no_image():
    data = encode(picture(3))
    start = data.index(b"IDAT") - 4
    size = int.from_bytes(data[start : start + 4], "big")
    pixels = zlib.compress(zlib.decompress(data[start + 8 : start + 8 + size])[:500])
    body = b"IDAT" + pixels
    chunk = len(pixels).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    broken = data[:start] + chunk + data[start + 12 + size :]
    assert _decode_png(broken, 3, 33) is None
