"""Small labelled sets in memory, whose pixels say which image they are."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shades:
    """Images (1, 8, 8) of one shade each: the set's first shade, then one more each."""

    shades: tuple[int, ...]
    given: tuple[int, ...]
    fingerprint: str = "shades"

    @property
    def count(self):
        return len(self.shades)

    @property
    def labels(self):
        return np.array(self.given, np.int64)

    def read(self, numbers):
        values = np.array([self.shades[i] for i in numbers], np.uint8)
        return np.tile(values[:, None, None, None], (1, 1, 8, 8))


def shades(first, labels):
    return Shades(tuple(range(first, first + len(labels))), tuple(labels))


def stripes(n, seed=0):
    """Noisy stripes: across for class 0, down for class 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    across = np.tile(np.array([0, 200] * 4)[:, None], (1, 8))
    images = np.where(labels[:, None, None] == 0, across, across.T)
    noisy = (images + rng.integers(0, 56, (n, 8, 8)))[:, None].astype(np.uint8)
    return Pictures(noisy, labels)


@dataclass(frozen=True)
class Pictures:
    pixels: np.ndarray
    labels: np.ndarray

    @property
    def count(self):
        return len(self.labels)

    def read(self, numbers):
        return self.pixels[list(numbers)]
