"""Features of images: extracted once, by a network chosen by name; metrics see only these.

Shapes: N = images, C = channels, H = height, W = width, D = features, K = classes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cbdm_scale.evaluation.classifier import (
    NUM_FEATURES,
    SmallClassifier,
    load_classifier,
    missing_classifier,
)

Read = Callable[[str], bytes]
"""The bytes at a path or URL; raises FileNotFoundError where there is nothing."""


@dataclass(frozen=True)
class Features:
    """What a network makes of N images."""

    pool: Tensor
    """(N, D) penultimate layer."""

    logits: Tensor | None
    """(N, K) class scores, or None for a network without classes."""


class Extractor(Protocol):
    """Images (N, C, H, W) in [-1, 1] -> Features."""

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the weights' sha256: features compare only where equal."""
        ...

    def __call__(self, x: Tensor) -> Features: ...


@dataclass(frozen=True)
class ClassifierExtractor:
    """The small classifier that ``data_prep`` trains on the data set's real images."""

    net: SmallClassifier
    fingerprint: str
    name: str = "classifier"
    dim: int = NUM_FEATURES

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Features:
        size = self.net.image_size
        expected = (self.net.image_channels, size, size)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"eval.extractor classifier was trained on images {expected}, not on "
                f"{tuple(x.shape[1:])}. Use the classifier.safetensors of this data set."
            )
        weights = self.net.logits.weight
        pool, logits = self.net(x.to(weights.device, weights.dtype))
        return Features(pool, logits)


def to_model_range(images: Tensor) -> Tensor:
    """uint8 images in 0..255 -> float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1


def read_local(path: str) -> bytes:
    """Read a file of this machine."""
    return Path(path).read_bytes()


def _load_classifier(folder: str, read: Read, device: torch.device | str) -> Extractor:
    path = f"{folder.rstrip('/')}/classifier.safetensors"
    try:
        data = read(path)
    except FileNotFoundError as error:
        raise missing_classifier(path) from error
    net = load_classifier(data, name=path).to(device)
    return ClassifierExtractor(net, hashlib.sha256(data).hexdigest()[:16])


EXTRACTORS: dict[str, Callable[[str, Read, torch.device | str], Extractor]] = {
    "classifier": _load_classifier,
}


def load_extractor(
    name: str, folder: str, read: Read = read_local, device: torch.device | str = "cpu"
) -> Extractor:
    """The extractor called ``name``; its weights lie in ``folder``, that of the data set."""
    if name not in EXTRACTORS:
        known = ", ".join(EXTRACTORS)
        raise ValueError(f"eval.extractor {name!r} is not known. Choose from: {known}.")
    return EXTRACTORS[name](folder, read, device)
