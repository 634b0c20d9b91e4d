"""Which images a source has and what they are labelled, before any of them is opened.

It comes from one folder a class (class_folders) or from a table (label_tables).
N = images, K = classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.class_names import Name, class_key, class_order, labels_of_names
from cbdm_scale.storage.wording import shorten
from data_prep.readers.listing import Listing
from data_prep.readers.long_tail import UNBALANCED


@dataclass(frozen=True, kw_only=True)
class LabelledListing:
    """Images in a fixed order, each with a label."""

    class_names: tuple[str, ...]
    """K names in NFC, so that a name typed on one system is that of another."""
    listing: Listing
    """N images, with the paths as the source writes them for names."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownClasses:
    """The classes of the training images, which every other split must have."""

    names: tuple[str, ...]
    split: str
    """Which other split: eval or test."""

    def check(self, found: Sequence[str], option: str) -> None:
        """ValueError names the difference between a split's classes and those of training."""
        keys = set(map(class_key, found))
        lacking = [name for name in self.names if class_key(name) not in keys]
        labels = zip(found, labels_of_names(found, self.names), strict=True)
        more = [name for name, label in labels if label is None]
        if not lacking and not more:
            return
        difference = [
            f"{verb} {shorten(list(map(repr, names)))}"
            for verb, names in (("lacks", lacking), ("has besides", more))
            if names
        ]
        raise ValueError(
            f"{option}: the {self.split} images must have the same classes as the training "
            f"images, but {' and '.join(difference)}."
        )


def number_classes(
    labels: Sequence[Name],
    option: str,
    classes: int | None = None,
    *,
    known: KnownClasses | None = None,
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and labels (N,) out of what a source calls its labels.

    Labels follow the names, in the order of ``class_order``, or in that of the training images
    where these are ``known``. Else integers must be 0..K-1 with an image each, and become the
    names. K is ``classes``, or else the largest number and one. ``option`` starts the errors.
    """
    names = class_order(set(labels))
    if known is not None:
        known.check(names, option)
        names = known.names
    elif any(isinstance(label, int) for label in labels):
        numbers = [int(name) for name in names]
        _check_numbers(numbers, option, classes)
        names = tuple(map(str, numbers))
    if classes is not None and classes != len(names):
        raise ValueError(
            f"{option}: it has {len(names)} classes, not the {classes} of --classes"
        )
    check_num_classes(len(names), option)
    return names, np.array(labels_of_names(labels, names), np.int64)


def _check_numbers(numbers: list[int], option: str, classes: int | None) -> None:
    k = numbers[-1] + 1 if classes is None else classes
    outside = [n for n in numbers if not 0 <= n < k]
    if outside:
        raise ValueError(
            f"{option}: label {outside[0]} is outside 0..{k - 1}. Labels count from 0."
        )
    if len(numbers) < k:
        first = next(i for i in range(k) if i >= len(numbers) or numbers[i] != i)
        raise ValueError(
            f"{option}: {k - len(numbers):,} of the labels 0..{k - 1} have no image, the first "
            f"is {first}. Number the classes 0..K-1 without gaps, or give their names."
        )


def check_num_classes(num_classes: int, option: str) -> None:
    """ValueError if there is only one class."""
    if num_classes < 2:
        raise ValueError(
            f"{option} has {num_classes} class; at least 2 are needed, as classes are what is "
            "balanced."
        )


def eval_notes(labels: NDArray[np.int64]) -> tuple[str, ...]:
    """What to know where the training images also serve as eval."""
    counts = np.bincount(labels)
    if counts.max() <= UNBALANCED * counts.min():
        return ()
    return (
        f"eval, which metrics compare with, is the training images: {counts.min()} to "
        f"{counts.max()} a class. Give balanced ones with --eval-source.",
    )
