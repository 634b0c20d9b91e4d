"""Decoding an image of the training resolution, and anybody's image file.

Shapes: C channels, H = W = image size.
"""

import io
import warnings
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEAD = PNG_SIGNATURE + b"\0\0\0\rIHDR"
PNG_PICTURE = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"})
"""Chunks that decide the pixels and which side is up; texts may say the latter too."""
PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})
SUFFIXES = (
    *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"),
    *("ppm", "pgm", "pbm", "pnm", "jp2", "avif"),
)
"""File names that promise an image, in lower case; decoding shows whether they keep it."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is opened; others of Pillow's start foreign programs (EPS) or are hardly images."""
MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded: Pillow's own limit, a quarter of a GB."""


class NotAnImage(ValueError):
    """A file that is no image, or one that nobody should decode; says why."""


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


def load_picture(data: bytes) -> "Image":
    """Anybody's image file, decoded by Pillow: NotAnImage, or what Pillow raises.

    Pillow has limits for profiles and texts, which nobody asked for: a PNG that it refuses is
    read without them. Texts go last, as they may say which side is up.
    """
    refusal: Exception | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for version in _versions(data):
            try:
                return _load(version)
            except MemoryError:
                raise
            except Exception as error:  # decoders fail in too many ways to list
                refusal = refusal or error
    assert refusal is not None
    raise refusal


def _versions(data: bytes) -> Iterator[bytes]:
    yield data
    if data.startswith(PNG_SIGNATURE):
        yield _only(data, PNG_PICTURE | PNG_TEXT)
        yield _only(data, PNG_PICTURE)


def _only(data: bytes, kinds: frozenset[bytes]) -> bytes:
    """A PNG with chunks of these kinds; what follows a chunk that is cut short stays."""
    kept, start = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data) or data[start + 4 : start + 8] in kinds:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _load(data: bytes) -> "Image":
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)  # reads the header only
    except UnidentifiedImageError:  # its text holds an address in memory
        raise NotAnImage(f"not an image ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:  # from its header, at twice our limit
        raise NotAnImage(f"too large: more than {MAX_PIXELS:,} pixels") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise NotAnImage(f"too large: {width} x {height}, more than {MAX_PIXELS:,} pixels")
    image.load()
    return image
