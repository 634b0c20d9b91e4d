"""Features of images: extracted once, by a network; metrics see only these.

A recipe is what a worker needs to load an extractor: found and checked once, sent anywhere.
Shapes: N = images, C = channels, H = height, W = width, D = features, K = classes.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cbdm_scale.data.pixels import to_levels, to_model_range
from cbdm_scale.devices import ieee_fp32
from cbdm_scale.metrics.classifier import NUM_FEATURES, Classifier, load_classifier


@dataclass(frozen=True)
class Features:
    """What a network makes of N images."""

    pool: Tensor
    """(N, D) penultimate layer."""

    logits: Tensor | None
    """(N, K) scores of the data set's classes; None for a network that does not know them."""

    imagenet: Tensor | None = None
    """(N, 1008) scores of Inception's own classes, for the Inception Score; None without."""


class Extractor(Protocol):
    """Images (N, C, H, W), uint8 or in [-1, 1] -> Features, always in float32."""

    @property
    def dim(self) -> int:
        """D"""
        ...

    @property
    def fingerprint(self) -> str:
        """A short word for weights and preprocessing: features compare only where equal."""
        ...

    def __call__(self, x: Tensor) -> Features: ...


class Recipe(Protocol):
    """How to load an extractor; holds the weights' bytes, so that it works on any machine."""

    @property
    def fingerprint(self) -> str:
        """That of the extractor."""
        ...

    def load(self, device: torch.device | str) -> Extractor:
        """The network on a device; ValueError if the file holds another one."""
        ...


@dataclass(frozen=True)
class _ClassifierExtractor:
    """A classifier of the data set's real images, by ``data_prep`` or ``classify``."""

    net: Classifier
    fingerprint: str
    dim: int = NUM_FEATURES
    places: Tensor | None = None
    """(K,) logit of each class of the data set; None where they are in its order."""

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Features:
        size = self.net.image_size
        expected = (self.net.image_channels, size, size)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"extractor classifier was trained on images {expected}, not on "
                f"{tuple(x.shape[1:])}. Use the classifier.safetensors of this data set."
            )
        device = self.net.logits.weight.device
        x = x.to(device)
        x = to_model_range(x) if x.dtype == torch.uint8 else x.float()
        with full_precision(device):
            pool, logits = self.net(laid_out(x))
        return Features(pool, logits if self.places is None else logits[:, self.places])


@dataclass(frozen=True)
class ClassifierRecipe:
    """A classifier's file."""

    data: bytes
    path: str
    """Where it was, for errors."""
    places: tuple[int, ...] = ()
    """(K,) logit of each class of the data set; () where they are in its order."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the file, and of another order of the logits."""
        order = str(self.places).encode() if self.places else b""
        return hashlib.sha256(self.data + order).hexdigest()[:16]

    def load(self, device: torch.device | str) -> Extractor:
        """The classifier on a device; ValueError if the file is damaged."""
        net = load_classifier(self.data, name=self.path).to(device)
        places = torch.tensor(self.places, device=device) if self.places else None
        return _ClassifierExtractor(net, self.fingerprint, places=places)


def as_levels(x: Tensor) -> Tensor:
    """Images as a file holds them: float32 whole numbers in 0..255."""
    if x.dtype == torch.uint8:
        return x.to(torch.float32)
    return to_levels(x.to(torch.float32))


def laid_out(x: Tensor) -> Tensor:
    """Images (N, C, H, W) in the layout that their device convolves them fastest in."""
    return x.contiguous(memory_format=torch.channels_last) if x.is_cuda else x


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Features are IEEE float32: not TF32, nor bf16 where a network runs under autocast."""
    with torch.autocast(device.type, enabled=False), ieee_fp32():
        yield


def label_hits(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Whether the largest logit (N, K) is that of the label (N,): (N,) bool, on the CPU."""
    if logits.shape[1] != num_classes:
        raise ValueError(
            f"the extractor knows {logits.shape[1]} classes and the data set has "
            f"{num_classes}. Use the classifier.safetensors of this data set."
        )
    return logits.argmax(dim=1).cpu() == labels.cpu()
