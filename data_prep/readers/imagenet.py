"""ImageNet-LT: the images that a list names, out of an ILSVRC 2012 folder.

Liu et al., "Large-Scale Long-Tailed Recognition in an Open World" (2019): ImageNet_LT_train.txt
has 115,846 lines like ``train/n01440764/n01440764_190.JPEG 0``; its authors' val list (20,000
images of the training folder) and test list (the 50,000 official validation images) are both
balanced, and either may be the eval split.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from cbdm_scale.storage.wording import shorten
from data_prep.options import Options
from data_prep.readers.imagenet_counts import imagenet_lt_counts
from data_prep.readers.listing import Folders, Listing, listed_source, numbered_lines
from data_prep.source import Source

PUBLISHED_LIST = "a063f095fcd475db4cf8b0658c4b73955535bbf9"
"""The git blob id of ImageNet_LT_train.txt."""
LINE = re.compile(r"(?:(?:.*/)?(train|val)/|.*/)?(n\d{8})/([^/]+) (\d+)")
BASES = ("", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")
"""Where train and val lie: unpacked by hand, as in the archive, as on Kaggle."""
VAL_LABELS = "LOC_val_solution.csv"
"""Kaggle's labels of the official validation images."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a list."""

    part: str
    wnid: str
    file: str
    label: int
    line: int

    @property
    def name(self) -> str:
        """Its path within ImageNet's folders."""
        return f"{self.part}/{self.wnid}/{self.file}"


def read_imagenet_lt(name: str, options: Options) -> Source:
    """Train by --train-list; eval by --eval-list, else the folder val, else training images.

    Classes are the list's, in the order of their WordNet ids, which are also their names.
    """
    root, path = Path(str(options.source)).expanduser(), Path(str(options.train_list))
    path = path.expanduser()
    rows = _rows(path, "--train-list")
    wnids, notes = _classes(rows, path)
    made, more = _provenance(path, rows, wnids)
    notes += more
    there = Folders()
    train = _listing(rows, wnids, root, there)
    if options.eval_list is not None:
        rows, more = _eval_rows(Path(options.eval_list).expanduser(), wnids)
        notes += more
        held_out = _listing(rows, wnids, root, there)
        made += f", eval by a list of {len(rows):,} lines"
    elif found := _val_rows(root, there, wnids):
        held_out = _listing(found, wnids, root, there)
        made += ", eval from the folder val"
    else:
        held_out = train
        notes.append(
            f"eval is the training images: --source ({root}) has no folder val and there is no "
            "--eval-list, so metrics will compare with a long tail"
        )
    return listed_source(
        {"train": train, "eval": held_out},
        name=name,
        class_names=wnids,
        made=made,
        notes=notes,
        options=options,
    )


def git_blob_id(content: bytes) -> str:
    """What ``git hash-object`` says of a file's content."""
    blob = b"blob %d\0" % len(content) + content
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest()


def _rows(path: Path, option: str) -> list[Row]:
    rows = []
    for i, line in numbered_lines(path, option):
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{option} ({path}): line {i} is {line[:80]!r}, not like "
                "'train/n01440764/n01440764_190.JPEG 0'."
            )
        part, wnid, file, label = match.groups()
        part = part or ("val" if "_val_" in file else "train")
        rows.append(Row(part=part, wnid=wnid, file=file, label=int(label), line=i))
    return rows


def _classes(rows: list[Row], path: Path) -> tuple[tuple[str, ...], list[str]]:
    """The sorted wnids, whose labels must rise with them, and notes."""
    labels = _labels(rows, path, "--train-list")
    wnids = tuple(sorted(labels))
    if len(wnids) < 2:
        raise ValueError(f"--train-list ({path}) names a single class, {wnids[0]}.")
    notes = []
    if labels[wnids[-1]] != len(wnids) - 1:
        notes.append(
            f"--train-list names {len(wnids)} classes with labels up to {labels[wnids[-1]]}: "
            f"they are numbered 0 to {len(wnids) - 1} here, in the same order"
        )
    return wnids, notes


def _labels(rows: list[Row], path: Path, option: str) -> dict[str, int]:
    """Wnid -> label: one each, and rising with the wnids."""
    labels: dict[str, int] = {}
    for row in rows:
        if labels.setdefault(row.wnid, row.label) != row.label:
            raise ValueError(
                f"{option} ({path}): line {row.line} gives {row.wnid} label {row.label}, an "
                f"earlier one {labels[row.wnid]}."
            )
    wnids = sorted(labels)
    for before, wnid in pairwise(wnids):
        if labels[before] >= labels[wnid]:
            raise ValueError(
                f"{option} ({path}): {before} has label {labels[before]} and {wnid} has "
                f"{labels[wnid]}, but labels must be in the order of the sorted WordNet ids. "
                "Number the classes in that order."
            )
    return labels


def _provenance(path: Path, rows: list[Row], wnids: tuple[str, ...]) -> tuple[str, list[str]]:
    """The line for dataset.json, and how the list differs from the published one."""
    found = git_blob_id(path.read_bytes())
    if found == PUBLISHED_LIST:
        return "ImageNet-LT, the published list", []
    notes = [
        f"--train-list is not the published ImageNet_LT_train.txt: its git blob id is {found}, "
        f"published is {PUBLISHED_LIST}"
    ]
    counts = {wnid: 0 for wnid in wnids}
    for row in rows:
        counts[row.wnid] += 1
    published = imagenet_lt_counts()
    other = [f"{w} {n}" for w, n in counts.items() if n != published.get(w, 0)]
    total = sum(published.values())
    notes.append(
        f"it names {len(rows):,} images of {len(wnids):,} classes; published are {total:,} of "
        f"{len(published):,}. "
        + (
            f"{len(other):,} of its classes have another count than published: {shorten(other)}"
            if other
            else "Each of its classes has the published count"
        )
    )
    if twice := len(rows) - len({row.name for row in rows}):
        notes.append(f"{twice:,} of its lines name an image for the second time")
    return f"ImageNet by a list of {len(rows):,} lines, git blob id {found}", notes


def _listing(rows: list[Row], wnids: tuple[str, ...], root: Path, there: Folders) -> Listing:
    place = {wnid: label for label, wnid in enumerate(wnids)}
    return Listing(
        names=tuple(row.name for row in rows),
        paths=tuple(there.find(row.file, _folders(root, row)) for row in rows),
        labels=np.array([place[row.wnid] for row in rows], np.int64),
    )


def _folders(root: Path, row: Row) -> Iterator[Path]:
    for base in BASES:
        part = root / base / row.part
        yield part / row.wnid
        if row.part == "val":
            yield part  # flat, as in the official archive
        else:
            yield part / row.wnid / "images"  # as Tiny ImageNet has it
    yield root / row.wnid
    yield root / row.wnid / "images"


def _eval_rows(path: Path, wnids: tuple[str, ...]) -> tuple[list[Row], list[str]]:
    """The list's images of the training classes, whichever way it numbers them, and notes."""
    rows, known = _rows(path, "--eval-list"), set(wnids)
    _labels(rows, path, "--eval-list")
    others = sorted({row.wnid for row in rows} - known)
    rows = [row for row in rows if row.wnid in known]
    if not rows:
        raise ValueError(f"--eval-list ({path}) has no image of the classes of --train-list.")
    left_out = f"--eval-list has classes that are not in --train-list: {shorten(others)}"
    return rows, [f"{left_out}; their images are left out"] if others else []


def _val_rows(root: Path, there: Folders, wnids: Iterable[str]) -> list[Row]:
    """The images of the folder val, sorted into classes or labelled by Kaggle's file."""
    for base in BASES:
        folder = root / base / "val"
        entries = there.names(folder)
        rows = [
            Row(part="val", wnid=wnid, file=file, label=0, line=0)
            for wnid in wnids
            if wnid in entries
            for file in sorted(there.names(folder / wnid))
        ]
        if rows:
            return rows
        if any(entry.startswith("ILSVRC2012_val_") for entry in entries):
            return _flat_rows(root, folder, set(wnids))
    return []


def _flat_rows(root: Path, folder: Path, wnids: set[str]) -> list[Row]:
    table = root / VAL_LABELS
    if not table.is_file():
        raise ValueError(
            f"--source ({root}): the images of {folder} are not sorted into classes. Give "
            f"their labels by --eval-list ImageNet_LT_test.txt, or put {VAL_LABELS} there."
        )
    rows = []
    for i, line in numbered_lines(table, "--source")[1:]:
        image, _, boxes = line.partition(",")
        wnid = boxes[:9]
        if wnid in wnids:
            rows.append(Row(part="val", wnid=wnid, file=f"{image}.JPEG", label=0, line=i))
    return rows
