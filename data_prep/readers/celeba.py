"""CelebA-5: faces by hair, five classes, from CelebA's aligned images and published lists.

Liu et al., "Deep Learning Face Attributes in the Wild" (2015); the five-class, long-tailed
lists are those of Kim et al., "M2m: Imbalanced Classification via Major-to-minor Translation"
(2020): celebA_train_orig.txt, celebA_val_orig.txt and celebA_test_orig.txt. They are not clean:
an image with two of the attributes stands under both labels, and some are in two splits.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cbdm_scale.storage.wording import clip
from data_prep.options import Options
from data_prep.readers.listing import Folders, Listing, listed_source, numbered_lines
from data_prep.source import Source

CLASSES = ("Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
SPLITS = ("train", "val", "test")
SUBFOLDERS = ("", "celeba", "Anno", "Eval", "Img", "CelebA", "CelebA/Anno", "CelebA/Eval",
              "CelebA/Img")  # fmt: skip
"""Where the parts of CelebA lie: side by side, as torchvision unpacks them, as published."""
IMAGES = "img_align_celeba"
IMAGE_FOLDERS = IMAGES, f"{IMAGES}/{IMAGES}"  # the second as some archives unpack
LINE = re.compile(r"(?:.*[/\\])?([^/\\]+\.\w+)\s+(\d+)")

Rows = list[tuple[str, int]]
"""File name and label."""


def read_celeba5(name: str, options: Options) -> Source:
    """Splits train, val, test and eval, which is train: val and test are too small for FID.

    By default the published lists, line by line; with --clean every image that has exactly one
    of the five attributes, in CelebA's own partition.
    """
    source = Path(str(options.source)).expanduser()
    if options.clean:
        rows = _clean_rows(source)
        made = "CelebA, images with exactly one of five hair attributes, official partition"
        notes: list[str] = []
    else:
        rows = {s: _listed_rows(_find(source, f"celebA_{s}_orig.txt")) for s in SPLITS}
        made = "CelebA-5, the published lists"
        notes = list(_overlaps(rows))
    folders = [source / sub / images for sub in SUBFOLDERS for images in IMAGE_FOLDERS]
    listings = {s: _listing(rows[s], folders) for s in SPLITS}
    notes.append("eval is the training images: val and test hold too few for a FID")
    return listed_source(
        {
            "train": listings["train"],
            "eval": listings["train"],
            "val": listings["val"],
            "test": listings["test"],
        },
        name=name,
        class_names=CLASSES,
        made=made,
        notes=notes,
        options=options,
    )


def _listing(rows: Rows, folders: list[Path]) -> Listing:
    there = Folders()
    return Listing(
        names=tuple(image for image, _ in rows),
        paths=tuple(there.find(image, folders) for image, _ in rows),
        labels=np.array([label for _, label in rows], np.int64),
    )


def _find(source: Path, file: str) -> Path:
    for sub in SUBFOLDERS:
        if (source / sub / file).is_file():
            return source / sub / file
    raise ValueError(
        f"--source ({source}) has no {file}. Put it there beside {IMAGES}: the lists "
        "celebA_{train,val,test}_orig.txt by default, list_attr_celeba.txt and "
        "list_eval_partition.txt for --clean."
    )


def _listed_rows(path: Path) -> Rows:
    rows = []
    for i, line in numbered_lines(path, "--source"):
        match = LINE.fullmatch(line)
        if match is None or int(match[2]) >= len(CLASSES):
            raise ValueError(
                f"--source ({path}): line {i} is {clip(line)!r}, not a path of an image and a "
                f"label of 0 to {len(CLASSES) - 1}."
            )
        rows.append((match[1], int(match[2])))
    return rows


def _overlaps(rows: dict[str, Rows]) -> Iterator[str]:
    """What a user of the published lists should know about them."""
    images = {split: Counter(image for image, _ in part) for split, part in rows.items()}
    labels = {split: Counter(image for image, _ in set(part)) for split, part in rows.items()}
    two = {split: sum(n > 1 for n in found.values()) for split, found in labels.items()}
    if total := sum(two.values()):
        each = ", ".join(f"{n:,} in {split}" for split, n in two.items() if n)
        yield f"images under two labels of one split: {total:,} ({each})"
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := len(images[a].keys() & images[b].keys()):
            yield f"images that are in {a} and in {b}: {both:,}"
    twice = sum(len(part) - len(set(part)) for part in rows.values())
    if twice:
        yield f"lines that stand twice in one list: {twice:,}"
    if total or twice or any(images[a].keys() & images["test"].keys() for a in SPLITS[:2]):
        yield "these lists are followed as published; --clean makes unambiguous ones"


def _clean_rows(source: Path) -> dict[str, Rows]:
    path = _find(source, "list_attr_celeba.txt")
    lines = numbered_lines(path, "--source")
    head = lines[1][1].split() if len(lines) > 1 else []
    if absent := [c for c in CLASSES if c not in head]:
        raise ValueError(
            f"--source ({path}): its second line does not name {', '.join(absent)}: it is not "
            "CelebA's list_attr_celeba.txt."
        )
    columns = [head.index(c) + 1 for c in CLASSES]
    splits = _partition(_find(source, "list_eval_partition.txt"))
    rows: dict[str, Rows] = {split: [] for split in SPLITS}
    for i, line in lines[2:]:
        words = line.split()
        if len(words) != len(head) + 1 or words[0] not in splits:
            raise ValueError(
                f"--source ({path}): line {i} is not a file name of list_eval_partition.txt "
                f"and {len(head)} attributes: {line[:40]!r}."
            )
        has = [label for label, column in enumerate(columns) if words[column] == "1"]
        if len(has) == 1:
            rows[splits[words[0]]].append((words[0], has[0]))
    return rows


def _partition(path: Path) -> dict[str, str]:
    """File name -> split."""
    found = {}
    for i, line in numbered_lines(path, "--source"):
        image, _, number = line.partition(" ")
        if number.strip() not in ("0", "1", "2"):
            raise ValueError(
                f"--source ({path}): line {i} is {clip(line)!r}, not a file name and 0, 1 or 2."
            )
        found[image] = SPLITS[int(number)]
    return found
