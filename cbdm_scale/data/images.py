"""Decoding an image of the training resolution.

Shapes: C channels, H = W = image size.
"""

import io
import zlib

import numpy as np
from numpy.typing import NDArray

PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def decode(data: bytes, channels: int, image_size: int) -> NDArray[np.uint8]:
    """An encoded image as (C, H, W) uint8; a ValueError says why it is none."""
    pixels = _decode_png(data, channels, image_size)
    if pixels is None:
        pixels = _decode_any(data, channels, image_size)
    if channels == 1:
        return pixels.reshape(1, image_size, image_size)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _decode_png(data: bytes, channels: int, image_size: int) -> NDArray[np.uint8] | None:
    """(H, W, C) or (H, W) of a whole PNG as data_prep writes it, in half of Pillow's time.

    None for any other file, about which Pillow has the word.
    """
    size = image_size.to_bytes(4, "big")
    kind = b"\x08\x02\0\0\0" if channels == 3 else b"\x08\0\0\0\0"  # 8 bit, not interlaced
    if data[:29] != PNG_HEAD + size + size + kind or not _is_whole_png(data):
        return None
    import pyspng

    try:
        pixels: NDArray[np.uint8] = pyspng.load(data)
    except RuntimeError:
        return None
    return pixels


def _is_whole_png(data: bytes) -> bool:
    """Whether the crc32 of every chunk is right up to the last one; libspng checks none."""
    view, start = memoryview(data), 8
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        kind = data[start + 4 : start + 8]
        if kind in (b"IEND", b"tRNS"):
            return kind == b"IEND"
        start = end + 4
    return False


def _decode_any(data: bytes, channels: int, image_size: int) -> NDArray[np.uint8]:
    """(H, W, C) or (H, W) of whatever Pillow reads."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.size != (image_size, image_size):
                raise ValueError(f"is {image.size} pixels, not {image_size} x {image_size}")
            mode = "L" if channels == 1 else "RGB"
            return np.array(image if image.mode == mode else image.convert(mode), np.uint8)
    except UnidentifiedImageError:  # its text holds an address in memory
        raise ValueError("does not decode: it is no kind of image that Pillow knows") from None
    except Exception as error:  # PIL raises OSError, SyntaxError, struct.error and more
        raise ValueError(f"does not decode: {error}") from error
