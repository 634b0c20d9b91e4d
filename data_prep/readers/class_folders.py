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

from cbdm_scale.data.class_names import Name, class_key
from cbdm_scale.data.images import SUFFIXES
from cbdm_scale.storage.wording import shorten
from data_prep.readers.classes import KnownClasses, LabelledListing, number_classes
from data_prep.readers.listing import Listing

NOT_CLASSES = frozenset({"__MACOSX", "@eaDir"})
"""Folders that archivers and file servers leave behind, with copies of images in them."""
TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
"""In the order in which they are preferred as the test split; letter case does not count."""
SPLIT_LIKE = re.compile(
    r"(train|training|tests?|testing|val|valid|validation|dev|eval|evaluation|hold[-_]?out)"
    r"([-_ ]?(sets?|split|data|images?|imgs?|[0-9]+))?",
    re.IGNORECASE,
)
"""Names that some give to splits."""

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


def find_splits(root: Path, option: str) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folders of train and, maybe, test, and notes that say how the layout was read.

    ``root`` itself, or the one folder in it, as archives unpack; there train/ and val/ or test/
    in any usual spelling, where all other folders are of their kind.
    """
    if not root.is_dir():
        raise ValueError(
            f"{option} ({root}) is neither a folder nor a .csv or .parquet file. Give a folder "
            "with one folder a class, or a table with the columns path and label."
        )
    inner = _below_stray_levels(root)
    notes = [] if inner == root else [f"{option}: the classes are the folders in {inner}"]
    folders = sorted(entry.name for entry in _entries(inner, Ignored()) if _is_folder(entry))
    train = [name for name in folders if name.lower() in TRAIN_FOLDERS]
    tests = [name for kind in TEST_FOLDERS for name in folders if name.lower() == kind]
    alike = [name for name in folders if SPLIT_LIKE.fullmatch(name)]
    if not alike:
        return {"train": inner}, tuple(notes)
    if len(train) != 1 or len({*train, *tests}) < len(folders):
        notes.append(
            f"{option}: {shorten(alike)} {'is' if len(alike) == 1 else 'are'} taken for "
            f"{'a class' if len(alike) == 1 else 'classes'} like all folders in {inner}. Of "
            "splits give one with --source, one with --eval-source"
        )
        return {"train": inner}, tuple(notes)
    splits = {"train": inner / train[0]}
    if tests:
        splits["test"] = inner / tests[0]
    words = [f"{folder.name}/ is the split {split}" for split, folder in splits.items()]
    words += [f"{name}/ is not read" for name in tests[1:]]
    return splits, (*notes, f"{option}: {', '.join(words)}")


def _below_stray_levels(root: Path) -> Path:
    """The first folder that holds something else than one folder of folders."""
    seen: set[FolderId] = set()
    while _identity(root) not in seen:
        seen.add(_identity(root))
        folders, images = _folders_and_images(root)
        if images or len(folders) != 1 or folders[0].name.lower() in TRAIN_FOLDERS:
            break
        inner, images = _folders_and_images(folders[0].path)
        if images or not inner:
            break
        root = Path(folders[0].path)
    return root


def _folders_and_images(folder: str | Path) -> tuple[list[os.DirEntry[str]], bool]:
    """The folders right in a folder, and whether it holds images too."""
    entries = list(_entries(folder, Ignored()))
    folders = [entry for entry in entries if _is_folder(entry)]
    others = (entry.name for entry in entries if entry not in folders)
    return folders, any(_suffix(name)[1:] in SUFFIXES for name in others)


def list_folder(root: Path, option: str, known: KnownClasses | None = None) -> LabelledListing:
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
    class_names, numbers = number_classes(list(folders), f"{option} ({root})", known=known)
    by_label = sorted(zip(numbers.tolist(), folders.items(), strict=True))
    ignored.others.update(_suffix(name) for name in loose)
    reserved = {_identity(root), *(_identity(folder) for folder in folders.values())}
    labels: list[int] = []
    paths: list[str] = []
    empty, deeper = [], []
    for label, (name, folder) in by_label:
        found = sorted(_images(folder, set(reserved), ignored))
        deeper += [path for path in found if os.path.dirname(path) != folder]
        paths += found
        labels += [label] * len(found)
        if not found:
            empty.append(name)
    if empty:
        raise ValueError(
            f"{option} ({root}): {len(empty)} class folders hold no image: "
            f"{shorten(list(map(repr, empty)))}. Remove them, or give a table with the columns "
            "path and label."
        )
    notes = ignored.notes()
    if deeper:
        notes += (
            f"{len(deeper):,} images lie in folders of the class folders, such as "
            f"{os.path.relpath(deeper[0], root)}: the first folder is the class",
        )
    return LabelledListing(
        class_names=class_names,
        listing=Listing(
            names=tuple(path[len(str(root)) :].lstrip("/") for path in paths),
            paths=tuple(os.path.join(os.getcwd(), path) for path in paths),
            labels=np.array(labels, np.int64),
        ),
        notes=notes,
    )


def _class_folders(entries: list[os.DirEntry[str]], option: str) -> dict[str, str]:
    """Class name -> path, in no order."""
    folders: dict[str, str] = {}
    names: dict[Name, str] = {}
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
        other = names.setdefault(class_key(name), name)
        if other != name:
            raise ValueError(
                f"{option}: the class folders {other!r} and {name!r} are the same number, so "
                "they are one class. Put their images into one of them."
            )
        twin = owner.setdefault(_identity(entry.path), name)
        if twin != name:
            raise ValueError(
                f"{option}: class folders {twin!r} and {name!r} are one and the same by a "
                "link, so its images would have two labels. Remove the link."
            )
        folders[name] = entry.path
    return folders


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
            elif _suffix(entry.name)[1:] in SUFFIXES and _is_file_or_lost(entry):
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
