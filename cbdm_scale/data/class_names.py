"""Names of classes: their order, and which label a name has.

A name that is a whole number is that number, however it is spelt: 7, "7" and "07" are one
class. Any other name is its text in Unicode NFC. K = number of classes.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.storage.wording import shorten

NUMBER = re.compile(r"[+-]?[0-9]{1,18}")

Name = str | int
"""A class as a source writes it: JSON has both."""


def class_key(name: Name) -> Name:
    """What makes two spellings one class: the number, or else the text in NFC."""
    text = unicodedata.normalize("NFC", str(name))
    return int(text) if NUMBER.fullmatch(text) else text


def class_order(names: Iterable[Name]) -> tuple[str, ...]:
    """Class names (K,) in the order of their labels: numbers as numbers, then text as text.

    Each class once, in NFC; of several spellings of a number the shortest.
    """
    spellings: dict[Name, str] = {}
    for text in sorted({unicodedata.normalize("NFC", str(n)) for n in names}, key=_by_length):
        spellings.setdefault(class_key(text), text)
    order = sorted(spellings, key=lambda key: (isinstance(key, str), key))
    return tuple(spellings[key] for key in order)


def labels_of_names(names: Sequence[Name], class_names: Sequence[str]) -> list[int | None]:
    """The label of each name among ``class_names`` (K,); None for a name that is not there."""
    labels: Mapping[Name, int] = {
        **{class_key(name): label for label, name in enumerate(class_names)},
        **{name: label for label, name in enumerate(class_names)},
    }
    return [labels.get(name, labels.get(class_key(name))) for name in names]


def class_folders(num_classes: int, class_names: Sequence[str] = ()) -> list[str]:
    """A folder for each class (K,): its number, so that they sort, and its name if any."""
    width = len(str(num_classes - 1))
    folders = []
    for c in range(num_classes):
        name = class_names[c] if class_names else str(c)
        clean = "".join(letter if letter.isalnum() else "_" for letter in name)
        folders.append(f"{c:0{width}d}" + ("" if name == str(c) else f"-{clean}"))
    return folders


def image_labels(
    found: Sequence[str], class_names: Sequence[str], where: str
) -> NDArray[np.int64]:
    """Labels of the classes that images came with, by name: (len(found),).

    ``found`` are names, or ``class_folders`` of these classes. Where they are all numbers and
    no class is called by a number, they are the labels themselves. ValueError names the
    others, after ``where``.
    """
    ours = {f: c for c, f in enumerate(class_folders(len(class_names), class_names))}
    by_name = labels_of_names(found, class_names)
    labels = [ours.get(n, c) if c is None else c for n, c in zip(found, by_name, strict=True)]
    numbers = [key for key in map(class_key, found) if isinstance(key, int)]
    named = all(isinstance(class_key(name), str) for name in class_names)
    if named and len(numbers) == len(found) and set(numbers) <= set(range(len(class_names))):
        return np.array(numbers, np.int64)
    if lost := [name for name, label in zip(found, labels, strict=True) if label is None]:
        raise ValueError(
            f"{where} has classes that the data set has not: {shorten(lost)}. Its classes are "
            f"{shorten(class_names)}: call the others so, or take them out."
        )
    return np.array(labels, np.int64)


def _by_length(text: str) -> tuple[int, str]:
    return len(text), text
