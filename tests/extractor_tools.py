"""Extractors small enough for tests, and images to use them on."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from cbdm_scale.metrics.extractors import find_extractor
from cbdm_scale.metrics.features import Features, as_levels


@dataclass(frozen=True)
class TinyExtractor:
    """Seven random features of an image of 3 x 8 x 8, and scores of two classes."""

    fingerprint: str
    name: str = "tiny"
    dim: int = 7

    def __call__(self, x):
        generator = torch.Generator().manual_seed(int(self.fingerprint, 16))
        pool = as_levels(x).flatten(1) / 255 @ torch.randn(192, 7, generator=generator)
        return Features(pool, logits=pool[:, :2], imagenet=None)


@dataclass(frozen=True)
class TinyRecipe:
    seed: int = 0

    @property
    def fingerprint(self):
        return hashlib.sha256(str(self.seed).encode()).hexdigest()[:8]

    def load(self, device):
        return TinyExtractor(self.fingerprint)


def load_extractor(*where, **options):
    """An extractor by its name, loaded here."""
    return find_extractor(*where, **options).load("cpu")


def write_npz(path, n=23, seed=0, change=None):
    """n images of 8 x 8 in the layout of ADM; ``change`` gets the arrays before."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(n) % 3
    if change:
        change(images, labels)
    np.savez(path, arr_0=images, arr_1=labels)
    return str(path)
