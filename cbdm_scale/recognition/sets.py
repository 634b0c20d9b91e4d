"""What a recognition run learns and what it is tested on, found and checked.

Shapes: K = classes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.metrics.sources import Images, SplitImages, Subset, open_images
from cbdm_scale.recognition.mixed_images import (
    MixedImages,
    check_added,
    not_in_training,
    select_added,
)
from cbdm_scale.storage.remote import split_scheme
from cbdm_scale.storage.wording import prog_of

FORMS = "images-*.npz", "png-*"


@dataclass(frozen=True)
class Sets:
    """What is learnt and what it is tested on."""

    manifest: Manifest
    train: MixedImages
    """Real images, then generated ones."""
    added: Subset | None
    """The generated ones among them."""
    test: Images
    learnt: str
    """Real and generated images in words."""
    tested: str
    """The test images in words."""


def find_sets(root: str, dataset: str, add: Sequence[str], per_class: str) -> Sets:
    """Everything found and checked; a ValueError says what does not fit."""
    manifest = read_manifest(root, dataset)
    added = find_added(add, per_class, manifest)
    test, tested = find_test(root, manifest)
    real = SplitImages(root, manifest.name, "train")
    num_real = sum(manifest.real_counts) or real.count
    learnt = f"{num_real:,} real images"
    if num_real < real.count:
        learnt += f" and the data set's {real.count - num_real:,} generated ones"
    if added:
        counts = np.bincount(added.labels, minlength=manifest.num_classes)
        each = f"{counts.min()} to {counts.max()} a class"
        learnt += f" and {added.count:,} generated ones ({each})"
    train = MixedImages([real, added] if added else [real])
    return Sets(manifest, train, added, test, learnt, tested)


def open_added(where: str, class_names: Sequence[str]) -> Images:
    """The images of ``--add where``, with labels by name where they have names.

    The folder of a set gives its form with most images, not its chunks: training asks
    for images in any order, and a chunk is read as a whole.
    """
    if not split_scheme(where)[0]:
        where = os.path.abspath(os.path.expanduser(where))
    if Path(where, "set.json").is_file():
        found = [form for pattern in FORMS for form in sorted(Path(where).glob(pattern))]
        if not found:
            raise ValueError(
                f"add ({where}) is a set that was not given out yet. Type its command again "
                "with --format npz."
            )
        where = str(max(found, key=lambda form: int(form.stem.rpartition("-")[2])))
    try:
        return open_images(where, class_names)
    except ValueError as error:
        raise ValueError(f"add: {error}") from error


def find_added(add: Sequence[str], per_class: str, manifest: Manifest) -> Subset | None:
    """The generated images to learn, checked; None without ``--add``."""
    if not add:
        if per_class != "all":
            raise ValueError(
                f"add_per_class ({per_class}) is about generated images, and there "
                "are none. Give a set with --add SET, or leave it out."
            )
        return None
    shape = (manifest.channels, manifest.image_size, manifest.image_size)
    sets = [open_added(where, manifest.class_names) for where in add]
    for where, images in zip(add, sets, strict=True):
        check_added(where, images, shape, manifest.num_classes)
    every = MixedImages(sets)
    rows = select_added(every.labels, manifest.counts["train"], per_class)
    return Subset(every, tuple(rows.tolist()))


def find_test(root: str, manifest: Manifest) -> tuple[Images, str]:
    """What to test on, and in words: test, or those of eval that are no training images."""
    if "test" in manifest.counts:
        images = SplitImages(root, manifest.name, "test")
        return images, f"{images.count:,} images of test"
    if "eval" not in manifest.counts:
        raise ValueError(
            f"dataset ({manifest.name}) has neither a test nor an eval split. Prepare it again "
            f"with --eval-source, images that are no training images: {prog_of('prepare')}."
        )
    images = SplitImages(root, manifest.name, "eval")
    rows = not_in_training(SplitImages(root, manifest.name, "train"), images)
    if not rows:
        raise ValueError(
            f"dataset ({manifest.name}) has no test split, and every image of its eval "
            "split is a training image. Prepare it again with --eval-source, images that are "
            f"no training images: {prog_of('prepare')}."
        )
    return Subset(images, tuple(rows)), (
        f"{len(rows):,} images of eval ({manifest.name} has no test split; "
        f"{images.count - len(rows):,} of eval are training images and left out)"
    )
