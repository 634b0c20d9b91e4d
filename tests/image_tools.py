"""Small images as files, and what a written source holds."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SHARED = Path(__file__).parents[2] / "shared" / "data"


def jpeg(colour=(200, 30, 30), size=(20, 16)):
    """A file of one colour."""
    return encoded(Image.new("RGB", size, colour), "JPEG", quality=95)


def put(path, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg() if data is None else data)
    return path


def counts(source, split="train"):
    return np.bincount(source.splits[split].labels, minlength=len(source.class_names)).tolist()


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_header(width, height, depth=8, colour=2):
    """A PNG that says what it is and holds no pixel."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in parts)


def chunk(name, body):
    """A chunk of a PNG."""
    return (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    )


def with_chunk(png, name, body, *, late=False):
    """A PNG with one more chunk, after its header or, late, after its pixels."""
    place = len(png) - 12 if late else 33
    return png[:place] + chunk(name, body) + png[place:]
