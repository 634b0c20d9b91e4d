"""The decoded images of one split in a file of this node's cache, each kept when first read.

Decoding is most of what an image costs, and a shard's images have the training resolution, so a
data set that fits the cache is decoded once per node and read from there in later epochs. Every
image carries a crc32 of its pixels: what a power cut left half written is not there.
Shapes: N = images of the split, n = images of a batch, P = C H W pixels of one.
"""

import os
import zlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.cache import CacheFolder

CRC_BYTES = 4


@dataclass
class DecodedSplit:
    """An open file of N slots of P bytes and their crc32; processes may share it."""

    descriptor: int
    num_pixels: int

    @classmethod
    def open(
        cls, cache: CacheFolder, name: str, num_images: int, num_pixels: int
    ) -> "DecodedSplit":
        """The file of this name, made if it is not there; a sparse one takes no disk yet."""
        size = cls.size(num_images, num_pixels)
        while True:
            descriptor = cache.hold(name, os.O_RDWR)
            if descriptor is None:
                descriptor = cache.create(name, size)
                if descriptor is None:
                    continue
                cache.publish(name, descriptor)
            return cls(descriptor, num_pixels)

    @staticmethod
    def size(num_images: int, num_pixels: int) -> int:
        """Bytes of the file."""
        return num_images * (num_pixels + CRC_BYTES)

    def __del__(self) -> None:
        os.close(self.descriptor)

    def fill(self, rows: NDArray[np.int64], pixels: NDArray[np.uint8]) -> list[int]:
        """Copy what is there to ``pixels`` (n, P); gives the places that are not."""
        step, missing = self.num_pixels + CRC_BYTES, []
        stored = bytearray(CRC_BYTES)
        for place, row in enumerate(rows.tolist()):
            view = pixels[place].data
            got = os.preadv(self.descriptor, [view, stored], row * step)
            if got != step or not _is_right(view, stored):
                missing.append(place)
        return missing

    def put(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Keep one image, (P,); a full disk keeps none."""
        data = pixels.tobytes()
        check = _crc(data).to_bytes(CRC_BYTES, "little")
        with suppress(OSError):  # then the image is decoded again next time
            os.pwritev(self.descriptor, [data, check], row * (self.num_pixels + CRC_BYTES))


def _crc(data: bytes | memoryview) -> int:
    return zlib.crc32(data) or 1  # 0 is a slot that was never written


def _is_right(pixels: memoryview, stored: bytearray) -> bool:
    check = int.from_bytes(stored, "little")
    return check != 0 and check == _crc(pixels)
