"""Images to extract features of, read by their number: on any worker, a part at a time.

Shapes: n = images asked for, N = images in all, (C, H, W) an image.
"""

import hashlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    """A split of a data set in shards, real or generated, in the order of its index.

    Labels follow the names of its classes among ``class_names`` (K,), where these are given.
    """

    def __init__(self, root: str, name: str, split: str, class_names: Sequence[str] = ()):
        self.index: Index = open_index(root, name, split)
        self.reader = ShardReader(root, name, self.index)
        manifest = read_manifest(root, name)
        self.fingerprint = f"{manifest.fingerprint}-{split}"
        self.new_labels: NDArray[np.int64] | None = None
        """(K,) label of each class of the manifest; None where they stay."""
        if class_names and tuple(class_names) != manifest.class_names:
            own = [c for c, number in enumerate(manifest.counts[split]) if number]
            names = [manifest.class_names[c] for c in own]
            self.new_labels = np.full(manifest.num_classes, -1, np.int64)
            self.new_labels[own] = image_labels(names, class_names, f"{root}/{name}:{split}")
            self.fingerprint += f"-{_digest_of(self.new_labels)}"

    @property
    def count(self) -> int:
        """Images of the split."""
        return self.index.num_samples

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), of the index, or by the names."""
        labels = np.array(self.index.labels)
        return labels if self.new_labels is None else self.new_labels[labels]

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """(n, C, H, W); a damaged image raises, named."""
        return np.stack([self.reader.load(row) for row in numbers])


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


MOST_PACKED = 100
"""Times as large as packed, beyond which an array of pixels is taken for a trap."""


def _digest_of(numbers: NDArray[np.int64]) -> str:
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def _leading_number(name: str) -> int | None:
    digits = name[: len(name) - len(name.lstrip("0123456789"))]
    return int(digits) if digits else None


class NpzImages:
    """The layout of ADM: ``arr_0`` (N, H, W, C) uint8 and, if it is there, ``arr_1`` labels."""

    def __init__(self, path: str):
        self.path = str(Path(path).expanduser())
        try:
            with zipfile.ZipFile(self.path) as archive:
                self.names = archive.namelist()
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise ValueError(f"{path} is not an .npz file: {error}") from error
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            raise ValueError(
                f"{path}: arr_0 must be (N, H, W, C) uint8, got {self.pixels.shape} "
                f"{self.pixels.dtype}"
            )
        if not self.count:
            raise ValueError(f"{path} holds no images: arr_0 is {self.pixels.shape}")

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k != "pixels"}

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """Mapped into memory where it is stored as it is, else unpacked."""
        if "arr_0.npy" not in self.names:
            raise ValueError(f"{self.path} has no arr_0: it is not in the layout of ADM")
        with self._readable("arr_0"):
            return _mapped(self.path, "arr_0.npy")

    @contextmanager
    def _readable(self, array: str) -> Iterator[None]:
        """A damaged zip or array fails in many ways; said as one."""
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"{self.path}: {array} cannot be read: {str(error)[:200]}"
            ) from error

    @property
    def count(self) -> int:
        """Images of the array."""
        return len(self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the file."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) of ``arr_1``; -1 without. ValueError if their number is another."""
        if "arr_1.npy" not in self.names:
            return np.full(self.count, -1, np.int64)
        with self._readable("arr_1"), np.load(self.path, allow_pickle=False) as file:
            labels = np.asarray(file["arr_1"], np.int64).reshape(-1)
        if len(labels) != self.count:
            raise ValueError(
                f"{self.path}: arr_1 has {len(labels):,} labels for {self.count:,} images"
            )
        return labels

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """(n, C, H, W)"""
        return np.ascontiguousarray(self.pixels[list(numbers)].transpose(0, 3, 1, 2))


def _mapped(path: str, member: str) -> NDArray[np.uint8]:
    """An array of an .npz, without reading it where the zip stores it uncompressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type == zipfile.ZIP_STORED:
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read(stream)
                header = stream.tell()
            if not fortran and dtype == np.uint8:
                with open(path, "rb") as file:  # the local header has lengths of its own
                    file.seek(info.header_offset + 26)
                    name, extra = np.frombuffer(file.read(4), "<u2").tolist()
                start = info.header_offset + 30 + name + extra + header
                if math.prod(shape) + header != info.file_size or min(shape, default=0) < 0:
                    raise ValueError(f"it says the shape {shape} of {info.file_size:,} bytes")
                if not math.prod(shape):  # nothing to map
                    return np.empty(shape, np.uint8)
                return np.memmap(path, np.uint8, "r", start, shape)
        if info.file_size > max(MOST_PACKED * info.compress_size, 1 << 28):
            raise ValueError(
                f"{info.compress_size:,} bytes unpack to {info.file_size:,}: no images do that"
            )
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[member.removesuffix(".npy")])


def open_images(where: str, class_names: Sequence[str] = ()) -> Images:
    """Images by their place: FILE.npz, a folder of images, or DATASET:SPLIT for shards.

    Where the images come with names of classes, their labels are those of ``class_names`` (K,).
    """
    if where.endswith(".npz"):
        return NpzImages(where)
    folder, mark, split = where.rpartition(":")
    if mark and not split.startswith("//"):
        root, _, name = folder.rstrip("/").rpartition("/")
        return SplitImages(root or ".", name, split, class_names)
    if not Path(where).expanduser().is_dir():
        raise ValueError(
            f"{where} is not there. Give an .npz file, a folder of images, or DATASET:SPLIT, "
            "the folder of a data set in shards with one of its splits."
        )
    return FolderImages(where, class_names)
