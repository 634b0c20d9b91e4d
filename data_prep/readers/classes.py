"""Which images a source has and what they are labelled, before any of them is opened.

It comes from one folder a class (class_folders) or from a table (label_tables).
N = images, K = classes.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def number_classes(
    labels: Sequence[int | str], option: str, classes: int | None = None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and labels (N,) out of what a source calls its labels.

    Names are sorted; numbers must be 0..K-1 with an image each, and become the names. K is
    ``classes``, or else the largest number and one. ``option`` starts the errors.
    """
    distinct = set(labels)
    if all(isinstance(label, str) for label in distinct):
        names = sorted({unicodedata.normalize("NFC", str(label)) for label in distinct})
        place = {n: i for i, n in enumerate(names)}
        found = [place[unicodedata.normalize("NFC", str(label))] for label in labels]
    else:
        numbers = sorted(int(label) for label in distinct)
        _check_numbers(numbers, option, classes)
        names = [str(n) for n in numbers]
        found = [int(label) for label in labels]
    if classes is not None and classes != len(names):
        raise ValueError(
            f"{option}: it has {len(names)} classes, not the {classes} of --classes"
        )
    check_num_classes(len(names), option)
    return tuple(names), np.array(found, np.int64)


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


def check_same_classes(
    expected: tuple[str, ...], found: tuple[str, ...], split: str, option: str
) -> None:
    """ValueError names the difference between a split's classes and those of training."""
    lacking = [name for name in expected if name not in set(found)]
    more = [name for name in found if name not in set(expected)]
    if not lacking and not more:
        return
    difference = [
        f"{verb} {', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''}"
        for verb, names in (("lacks", lacking), ("has besides", more))
        if names
    ]
    raise ValueError(
        f"{option}: the {split} images must have the same classes as the training images, but "
        f"{' and '.join(difference)}."
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
