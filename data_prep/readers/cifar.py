"""CIFAR-10 and CIFAR-100 as their authors publish them, python or binary version.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009). An image is 3,072
bytes: 32 x 32 red, then green, then blue.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.options import Options
from data_prep.readers.long_tail import cut_tail
from data_prep.readers.pickles import load_batch
from data_prep.source import Source, Split

IMAGE_BYTES = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One data set's files in its two published versions."""

    title: str
    num_classes: int
    python_folder: str
    binary_folder: str
    python_files: dict[str, str]
    """File name -> md5: the training files, then the test file, then the meta file."""
    binary_files: tuple[str, ...]
    label_key: str
    names_key: str
    label_bytes: int
    """Bytes before the pixels of a binary record; the last of them is the label."""


CIFAR10 = Variant(
    title="CIFAR-10",
    num_classes=10,
    python_folder="cifar-10-batches-py",
    binary_folder="cifar-10-batches-bin",
    python_files={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    binary_files=(
        *(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test_batch.bin",
        "batches.meta.txt",
    ),
    label_key="labels",
    names_key="label_names",
    label_bytes=1,
)
CIFAR100 = Variant(
    title="CIFAR-100",
    num_classes=100,
    python_folder="cifar-100-python",
    binary_folder="cifar-100-binary",
    python_files={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
    binary_files=("train.bin", "test.bin", "fine_label_names.txt"),
    label_key="fine_labels",
    names_key="fine_label_names",
    label_bytes=2,
)

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, 32, 32, 3) and labels (N,)."""


def read_cifar(name: str, options: Options) -> Source:
    """cifar10, cifar100, and long-tailed with _lt; eval is the full training set either way."""
    variant = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name.removesuffix("_lt")]
    folder, is_python = _find_folder(variant, Path(str(options.source)).expanduser())
    changed: list[str] = []
    if is_python:
        changed = _changed_files(variant, folder, options.allow_changed)
        notes = [f"{f} is not the published file (md5)" for f in changed]
    else:
        notes = ["binary version: no md5s are known for it, so its files are not checked"]
    files = list(variant.python_files if is_python else variant.binary_files)
    parts = [_read_part(variant, folder / f, is_python) for f in files[:-1]]
    train_images = np.concatenate([images for images, _ in parts[:-1]])
    train_labels = np.concatenate([labels for _, labels in parts[:-1]])
    full = Split.of_arrays(train_images, train_labels, "train")
    train, made = full, f"{variant.title}"
    if name.endswith("_lt"):
        largest = int(np.bincount(train_labels, minlength=variant.num_classes).max())
        train, tail = cut_tail(full, largest, variant.num_classes, options)
        made += f", {tail}, seed {options.seed}"
    if changed:
        made += f", with files that differ from the published ones: {', '.join(changed)}"
    return Source(
        name=name,
        class_names=_read_names(variant, folder / files[-1], is_python),
        image_size=32,
        channels=3,
        splits={"train": train, "eval": full, "test": Split.of_arrays(*parts[-1], "test")},
        made=made,
        mirrors=True,
        notes=tuple(notes),
    )


def _find_folder(variant: Variant, source: Path) -> tuple[Path, bool]:
    """The folder with the files, and whether it is the python version."""
    versions = (
        (variant.python_folder, list(variant.python_files), True),
        (variant.binary_folder, list(variant.binary_files), False),
    )
    for subfolder, files, is_python in versions:
        for folder in (source, source / subfolder):
            present = [f for f in files if (folder / f).is_file()]
            if len(present) == len(files):
                return folder, is_python
            if present:
                missing = sorted(set(files) - set(present))
                raise ValueError(
                    f"--source ({folder}) lacks {', '.join(missing)} of {variant.title}. "
                    "Unpack the published archive again."
                )
    raise ValueError(
        f"--source ({source}) is not {variant.title}: it holds neither {variant.python_folder} "
        f"({', '.join(variant.python_files)}) nor {variant.binary_folder} "
        f"({', '.join(variant.binary_files)}). Give the folder of the unpacked archive."
    )


def _changed_files(variant: Variant, folder: Path, allow_changed: bool) -> list[str]:
    changed = []
    for file, expected in variant.python_files.items():
        found = hashlib.md5((folder / file).read_bytes(), usedforsecurity=False).hexdigest()
        if found != expected:
            changed.append(file)
    if changed and not allow_changed:
        raise ValueError(
            f"--source ({folder}): {', '.join(changed)} differ from the published files (md5). "
            "Unpack the published archive again, or accept them with --allow-changed."
        )
    return changed


def _read_part(variant: Variant, path: Path, is_python: bool) -> Part:
    if is_python:
        try:
            batch = load_batch(path.read_bytes())
            pixels = np.asarray(batch["data"], np.uint8)
            labels = np.asarray(batch[variant.label_key], np.int64)
        except KeyError as error:
            raise ValueError(f"--source: {path} has no {error}") from None
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"--source: {path} is not a CIFAR batch: {error}") from error
    else:
        raw = np.frombuffer(path.read_bytes(), np.uint8)
        record = variant.label_bytes + IMAGE_BYTES
        if raw.size % record:
            raise ValueError(
                f"--source: {path} is cut short: {raw.size} bytes are not whole records of "
                f"{record} bytes. Unpack the published archive again."
            )
        records = raw.reshape(-1, record)
        pixels = records[:, variant.label_bytes :]
        labels = records[:, variant.label_bytes - 1].astype(np.int64)
    if pixels.shape != (len(labels), IMAGE_BYTES) or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"--source: {path} holds pixels of shape {pixels.shape} for {len(labels)} labels; "
            f"expected (number of labels, {IMAGE_BYTES})"
        )
    if labels.min() < 0 or labels.max() >= variant.num_classes:
        worst = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(
            f"--source: {path} has label {worst}, outside 0..{variant.num_classes - 1}"
        )
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _read_names(variant: Variant, path: Path, is_python: bool) -> tuple[str, ...]:
    if is_python:
        try:
            raw = load_batch(path.read_bytes())[variant.names_key]
            names = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in raw)
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"--source: {path} has no class names: {error}") from error
    else:
        names = tuple(path.read_text(encoding="utf-8").split())
    if len(names) != variant.num_classes:
        raise ValueError(
            f"--source: {path} names {len(names)} classes, not {variant.num_classes}"
        )
    return names
