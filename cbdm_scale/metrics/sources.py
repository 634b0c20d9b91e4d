"""Images to extract features of, read by their number: on any worker, a part at a time.

Shapes: n = images asked for, N = images in all, (C, H, W) an image.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.class_names import class_order, image_labels, labels_of_names
from cbdm_scale.data.images import SUFFIXES, load_picture
from cbdm_scale.data.index import Index, open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.metrics.npz import NpzImages


class Images(Protocol):
    """A set of labelled images. Pickles small: a worker opens the files by itself."""

    @property
    def count(self) -> int:
        """N"""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with any byte of any image, and with the labels."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,); -1 where there is none."""
        ...

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """(n, C, H, W)"""
        ...


class SplitImages:
    """A split of a data set in shards, real or generated, in the order of its index."""

    def __init__(self, root: str, name: str, split: str):
        self.index: Index = open_index(root, name, split)
        self.reader = ShardReader(root, name, self.index)
        manifest = read_manifest(root, name)
        self.class_names = manifest.class_names
        self.fingerprint = f"{manifest.fingerprint}-{split}"

    @property
    def count(self) -> int:
        """Images of the split."""
        return self.index.num_samples

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), of the index."""
        return np.asarray(self.index.labels[np.arange(self.count)])

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """(n, C, H, W); a damaged image raises, named."""
        return np.stack([self.reader.load(row) for row in numbers])


@dataclass(frozen=True)
class Renumbered:
    """Images of a set with the labels of another order of the classes."""

    images: Images
    new_labels: tuple[int, ...]
    """Label of each class of the set; -1 for one that no image has."""

    @property
    def count(self) -> int:
        """N"""
        return self.images.count

    @property
    def fingerprint(self) -> str:
        """That of the set and of the new labels."""
        return f"{self.images.fingerprint}-{_digest_of(np.array(self.new_labels, np.int64))}"

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,); -1 where there is none."""
        new_labels: NDArray[np.int64] = np.array([*self.new_labels, -1], np.int64)
        labels: NDArray[np.int64] = new_labels[self.images.labels.clip(-1)]
        return labels

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """(n, C, H, W)"""
        return self.images.read(numbers)


def renumbered(
    images: Images, names: Sequence[str], class_names: Sequence[str], where: str
) -> Images:
    """The images with the labels that the ``names`` of their classes have among others.

    Those of ``class_names`` (K,). As they are where either is () or both are the same.
    ValueError, after ``where``, names classes of an image that are not there.
    """
    if not names or not class_names or tuple(names) == tuple(class_names):
        return images
    own = np.unique(images.labels)
    own = own[own >= 0]
    if len(own) and own[-1] >= len(names):
        raise ValueError(f"{where} has label {own[-1]} and {len(names)} names of classes")
    new_labels = np.full(len(names), -1, np.int64)
    new_labels[own] = image_labels([names[c] for c in own], class_names, where)
    return Renumbered(images, tuple(new_labels.tolist()))


@dataclass(frozen=True)
class Subset:
    """Some images of a set."""

    images: Images
    numbers: tuple[int, ...]

    @property
    def count(self) -> int:
        """Images that were chosen."""
        return len(self.numbers)

    @property
    def fingerprint(self) -> str:
        """That of the whole set and of the numbers."""
        return f"{self.images.fingerprint}-{_digest_of(np.array(self.numbers, np.int64))}"

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) of the chosen ones."""
        return self.images.labels[list(self.numbers)]

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """(n, C, H, W), by numbers among the chosen ones."""
        return self.images.read([self.numbers[i] for i in numbers])


class FolderImages:
    """Image files below a folder, in the order of their paths.

    A folder of images one level down is a class: its label is that of its name among
    ``class_names`` (K,), see ``image_labels``. Without these it is the number that the name
    begins with, or else its place in ``class_order``. All images must have one size and one
    mode.
    """

    def __init__(self, folder: str, class_names: Sequence[str] = ()):
        self.folder, self.class_names = Path(folder).expanduser(), tuple(class_names)
        found = (p for p in self.folder.rglob("*") if p.suffix[1:].lower() in SUFFIXES)
        self.files = sorted(p.relative_to(self.folder).as_posix() for p in found)
        if not self.files:
            raise ValueError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
        self.labels = self._labels()

    @property
    def count(self) -> int:
        """Image files."""
        return len(self.files)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of all paths and files, and of labels by name."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file}\n".encode())
            digest.update(hashlib.sha256((self.folder / file).read_bytes()).digest())
        if self.class_names:
            digest.update(_digest_of(self.labels).encode())
        return digest.hexdigest()[:16]

    def _labels(self) -> NDArray[np.int64]:
        """(N,): see the class; -1 right in the folder."""
        classes = [file.partition("/")[0] if "/" in file else "" for file in self.files]
        names = class_order(set(classes) - {""})
        places = labels_of_names(classes, names)
        numbers = [_leading_number(name) for name in names]
        if self.class_names and names:
            by_place = image_labels(names, self.class_names, str(self.folder))
        elif None not in numbers:
            by_place = np.array(numbers, np.int64)
        else:
            by_place = np.arange(len(names))
        return np.array([-1 if c is None else by_place[c] for c in places], np.int64)

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """(n, C, H, W); ValueError if one does not decode or has another size."""
        images = [self._load(self.files[i]) for i in numbers]
        for i, image in zip(numbers, images, strict=True):
            if image.shape != images[0].shape:
                raise ValueError(
                    f"{self.folder / self.files[i]} is {image.shape} (channels, height, "
                    f"width), others are {images[0].shape}. Scale them to one size first."
                )
        return np.stack(images)

    def _load(self, file: str) -> NDArray[np.uint8]:
        try:
            image = load_picture((self.folder / file).read_bytes())
            grey = image.mode in ("L", "1")
            pixels = np.array(image.convert("L" if grey else "RGB"), np.uint8)
        except Exception as error:  # PIL raises OSError, SyntaxError, struct.error and more
            raise ValueError(f"{self.folder / file} does not decode: {error}") from error
        return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _digest_of(numbers: NDArray[np.int64]) -> str:
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def _leading_number(name: str) -> int | None:
    digits = name[: len(name) - len(name.lstrip("0123456789"))]
    return int(digits) if digits else None


def open_images(where: str, class_names: Sequence[str] = ()) -> Images:
    """Images by their place: FILE.npz, a folder of images, or DATASET:SPLIT for shards.

    Where the images come with names of classes, their labels are those of ``class_names`` (K,).
    """
    if where.endswith(".npz"):
        packed = NpzImages(where)
        return renumbered(packed, packed.class_names, class_names, where)
    folder, mark, split = where.rpartition(":")
    if mark and not split.startswith("//"):
        root, _, name = folder.rstrip("/").rpartition("/")
        found = SplitImages(root or ".", name, split)
        return renumbered(found, found.class_names, class_names, where)
    if not Path(where).expanduser().is_dir():
        raise ValueError(
            f"{where} is not there. Give an .npz file, a folder of images, or DATASET:SPLIT, "
            "the folder of a data set in shards with one of its splits."
        )
    return FolderImages(where, class_names)
