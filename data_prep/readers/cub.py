"""CUB-200-2011: 11,788 photographs of 200 species of birds, in its authors' layout and split.

Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset" (2011): images.txt, classes.txt,
image_class_labels.txt, train_test_split.txt, bounding_boxes.txt; each line an id and a value.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.storage.wording import clip, shorten
from data_prep.options import Options
from data_prep.readers.images import Box
from data_prep.readers.listing import Folders, Listing, listed_source, numbered_lines
from data_prep.source import Source

FOLDER = "CUB_200_2011"
RESOLUTION = 128
PUBLISHED = (11_788, 5_994)
"""Images, and those of them for training."""


def read_cub200(name: str, options: Options) -> Source:
    """Splits train and test as published, and eval, which is train.

    Classes that no image of images.txt has are left out. With --bounding-box only the square
    around the bird is seen.
    """
    folder = _find_folder(Path(str(options.source)).expanduser())
    images = _read(folder / "images.txt")
    labels, class_names, notes = _labels(folder, images)
    in_train = _for_each(_read(folder / "train_test_split.txt"), images, folder)
    if odd := [i for i, value in in_train.items() if value not in ("0", "1")]:
        raise ValueError(
            f"--source ({folder / 'train_test_split.txt'}): image {odd[0]} has "
            f"{in_train[odd[0]]!r}, not 0 or 1."
        )
    boxes = _boxes(folder, images) if options.bounding_box else None
    everything = Listing(
        names=tuple(images.values()),
        paths=Folders().find_below(folder / "images", images.values()),
        labels=labels,
        boxes=boxes,
    )
    rows = [i for i, value in enumerate(in_train.values()) if value == "1"]
    train = everything.take(rows)
    test = everything.take(sorted(set(range(len(images))) - set(rows)))
    if (len(images), len(rows)) != PUBLISHED:
        notes.append(
            f"images.txt names {len(images):,} images, {len(rows):,} of them for training; "
            "published are {:,} and {:,}".format(*PUBLISHED)
        )
    notes.append("eval is the training images, which FID compares with")
    return listed_source(
        {"train": train, "eval": train, "test": test},
        name=name,
        class_names=class_names,
        resolution=RESOLUTION,
        made="CUB-200-2011, official split"
        + (", square around the bounding box" if options.bounding_box else ""),
        notes=notes,
        options=options,
    )


def _find_folder(source: Path) -> Path:
    for folder in (source, source / FOLDER):
        if (folder / "images.txt").is_file():
            return folder
    raise ValueError(
        f"--source ({source}) is not CUB-200-2011: it has no images.txt. Give the folder "
        f"{FOLDER} of the unpacked archive."
    )


def _read(path: Path) -> dict[int, str]:
    """Id -> the rest of the line, in the order of the lines."""
    found: dict[int, str] = {}
    for i, line in numbered_lines(path, "--source"):
        number, _, value = line.partition(" ")
        if not number.isdecimal() or not value or int(number) in found:
            raise ValueError(
                f"--source ({path}): line {i} is {clip(line)!r}, not a new id and a value."
            )
        found[int(number)] = value.strip()
    return found


def _for_each(values: dict[int, str], images: dict[int, str], folder: Path) -> dict[int, str]:
    """The values of these images, in their order."""
    if lacking := [i for i in images if i not in values]:
        raise ValueError(
            f"--source ({folder}): the files do not belong together: image {lacking[0]} of "
            f"images.txt ({images[lacking[0]]}) is not in all of them."
        )
    return {i: values[i] for i in images}


def _labels(
    folder: Path, images: dict[int, str]
) -> tuple[NDArray[np.int64], tuple[str, ...], list[str]]:
    """Labels (N,), the classes' names in the order of their ids, and notes."""
    path = folder / "image_class_labels.txt"
    classes = _read(folder / "classes.txt")
    text = _for_each(_read(path), images, folder)
    unknown = [i for i, c in text.items() if not c.isdecimal() or int(c) not in classes]
    if unknown:
        raise ValueError(
            f"--source ({path}): image {unknown[0]} has class {text[unknown[0]]}, which "
            "classes.txt does not name."
        )
    ids = [int(c) for c in text.values()]
    used = sorted(set(ids))
    place = {c: label for label, c in enumerate(used)}
    notes = []
    if absent := [name for c, name in classes.items() if c not in place]:
        notes.append(
            f"{len(absent)} of {len(classes)} classes have no image in images.txt and are "
            f"left out ({shorten(absent)})"
        )
    names = tuple(classes[c].partition(".")[2] or classes[c] for c in used)
    return np.array([place[c] for c in ids], np.int64), names, notes


def _boxes(folder: Path, images: dict[int, str]) -> tuple[Box, ...]:
    path = folder / "bounding_boxes.txt"
    boxes = []
    for i, value in _for_each(_read(path), images, folder).items():
        try:
            x, y, width, height = map(float, value.split())
        except ValueError:
            raise ValueError(
                f"--source ({path}): image {i} has {value!r}, not x, y, width and height."
            ) from None
        boxes.append((x, y, width, height))
    return tuple(boxes)
