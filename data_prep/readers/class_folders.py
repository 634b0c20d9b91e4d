"""One folder a class, with folders of any depth inside: what images there are.

Links are followed, and every folder is entered once a class, so that links in a circle end.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.readers.classes import LabelledListing, check_num_classes
from data_prep.readers.listing import Listing

SUFFIXES = re.compile(
    r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|p[pgbn]m|jp2|avif)", flags=re.IGNORECASE
)
"""File names that promise an image; whether the promise holds is seen when it is decoded."""
NOT_CLASSES = frozenset({"__MACOSX", "@eaDir"})
"""Folders that archivers and file servers leave behind, with copies of images in them."""
TEST_FOLDERS = ("test", "val", "valid", "validation")
"""In the order in which they are preferred as the test split."""

FolderId = tuple[int, int]


@dataclass
class Ignored:
    """What was passed over, to be told."""

    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)
    """Files that are not images by their suffix -> how many."""
    again: int = 0

    def notes(self) -> tuple[str, ...]:
        """One line for the user, or none."""
        parts = []
        if self.hidden:
            parts.append(f"{self.hidden:,} hidden files and folders")
        if self.others:
            kinds = ", ".join(
                f"{n:,} {s or 'without suffix'}" for s, n in self.others.most_common(4)
            )
            parts.append(f"{sum(self.others.values()):,} files that are no images ({kinds})")
        if self.again:
            parts.append(f"{self.again:,} links to folders that were seen already")
        return (f"ignored {', '.join(parts)}",) if parts else ()


def find_splits(root: Path, option: str) -> dict[str, Path]:
    """The folders of train and, maybe, test: ``root`` itself, or ImageFolder's train/ and val/.

    The layout is recognised where train is there and all other folders are of its kind.
    """
    if not root.is_dir():
        raise ValueError(
            f"{option} ({root}) is neither a folder nor a .csv or .parquet file. Give a folder "
            "with one folder a class, or a table with the columns path and label."
        )
    folders = {entry.name for entry in _entries(root, Ignored()) if _is_folder(entry)}
    if "train" not in folders or not folders <= {"train", *TEST_FOLDERS}:
        return {"train": root}
    test = next((name for name in TEST_FOLDERS if name in folders), None)
    return {"train": root / "train"} | ({"test": root / test} if test else {})


def list_folder(root: Path, option: str) -> LabelledListing:
    """The images of every class folder, sorted by class and by path."""
    ignored = Ignored()
    top = list(_entries(root, ignored))
    folders = _class_folders([e for e in top if _is_folder(e)], option)
    loose = [e.name for e in top if not _is_folder(e)]
    if not folders:
        holds = f"{len(loose)} files" if loose else "nothing"
        raise ValueError(
            f"{option} ({root}) holds {holds} and no class folders. Give one folder a class, "
            "or a table with the columns path and label."
        )
    check_num_classes(len(folders), f"{option} ({root})")
    ignored.others.update(_suffix(name) for name in loose)
    reserved = {_identity(root), *(_identity(folder) for folder in folders.values())}
    labels: list[int] = []
    paths: list[str] = []
    empty = []
    for label, (name, folder) in enumerate(folders.items()):
        found = sorted(_images(folder, set(reserved), ignored))
        paths += found
        labels += [label] * len(found)
        if not found:
            empty.append(name)
    if empty:
        shown = ", ".join(map(repr, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise ValueError(
            f"{option} ({root}): {len(empty)} class folders hold no image: {shown}. Remove "
            "them, or give a table with the columns path and label."
        )
    return LabelledListing(
        class_names=tuple(folders),
        listing=Listing(
            names=tuple(path[len(str(root)) :].lstrip("/") for path in paths),
            paths=tuple(paths),
            labels=np.array(labels, np.int64),
        ),
        notes=ignored.notes(),
    )


def _class_folders(entries: list[os.DirEntry[str]], option: str) -> dict[str, str]:
    """Class name -> path, sorted by name."""
    folders: dict[str, str] = {}
    owner: dict[FolderId, str] = {}
    for entry in entries:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{option}: the name of the class folder {os.fsencode(entry.path)!r} is not "
                "UTF-8. Rename it."
            ) from None
        name = unicodedata.normalize("NFC", entry.name)
        if name in folders:
            raise ValueError(
                f"{option}: two class folders are called {name!r}, in two spellings of the "
                "same letters (Unicode NFC and NFD). Rename one."
            )
        twin = owner.setdefault(_identity(entry.path), name)
        if twin != name:
            raise ValueError(
                f"{option}: class folders {twin!r} and {name!r} are one and the same by a "
                "link, so its images would have two labels. Remove the link."
            )
        folders[name] = entry.path
    return dict(sorted(folders.items()))


def _images(folder: str, seen: set[FolderId], ignored: Ignored) -> Iterator[str]:
    """Paths of the images below a folder, in no order."""
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop(), ignored):
            if _is_folder(entry):
                identity = _identity(entry.path)
                if identity in seen:
                    ignored.again += 1
                else:
                    seen.add(identity)
                    waiting.append(entry.path)
            elif SUFFIXES.fullmatch(_suffix(entry.name)) and _is_file_or_lost(entry):
                yield entry.path
            else:
                ignored.others[_suffix(entry.name)] += 1


def _entries(folder: str | Path, ignored: Ignored) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in NOT_CLASSES:
                ignored.hidden += 1
            else:
                yield entry


def _is_file_or_lost(entry: os.DirEntry[str]) -> bool:
    """No pipe or device, which could be read for ever; a dangling link is a missing image."""
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(folder: str | Path) -> FolderId:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
