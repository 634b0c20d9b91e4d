"""From what published lists name to a source: find the files, leave out what is missing."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import shorten
from data_prep.options import Options
from data_prep.readers.images import FILTER, RESOLUTION, Box, ImageFiles
from data_prep.readers.keys import make_keys
from data_prep.source import Source, Split


@dataclass
class Folders:
    """Which files there are; each folder is listed once, which is quick on network disks."""

    listed: dict[Path, frozenset[str]] = field(default_factory=dict)

    def names(self, folder: Path) -> frozenset[str]:
        """The names in a folder, none if it is not there."""
        if folder not in self.listed:
            try:
                self.listed[folder] = frozenset(os.listdir(folder))
            except (FileNotFoundError, NotADirectoryError):
                self.listed[folder] = frozenset()
        return self.listed[folder]

    def find(self, name: str, folders: Iterable[Path]) -> str | None:
        """The absolute path in the first of the folders that holds it."""
        return next((str(f.absolute() / name) for f in folders if name in self.names(f)), None)

    def find_below(self, folder: Path, names: Iterable[str]) -> tuple[str | None, ...]:
        """The absolute paths of names that may hold folders; None where one is missing."""
        files = (folder / name for name in names)
        return tuple(self.find(file.name, [file.parent]) for file in files)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of one split, in the order of its list; N images."""

    names: tuple[str, ...]
    """As the list writes them."""
    paths: tuple[str | None, ...]
    """None where there is no such file."""
    labels: NDArray[np.int64]
    """Shape (N,)."""
    boxes: tuple[Box, ...] | None = None

    def missing(self) -> list[str]:
        """Names of the images that are not there."""
        return [n for n, path in zip(self.names, self.paths, strict=True) if path is None]

    def take(self, rows: Sequence[int]) -> "Listing":
        """The images at some rows."""
        return Listing(
            names=tuple(self.names[i] for i in rows),
            paths=tuple(self.paths[i] for i in rows),
            labels=self.labels[list(rows)],
            boxes=None if self.boxes is None else tuple(self.boxes[i] for i in rows),
        )

    def split(self, resolution: int, channels: int = 3) -> Split:
        """The images, square and of so many pixels a side; none may be missing."""
        paths = tuple(path for path in self.paths if path is not None)
        assert len(paths) == len(self.paths), "missing images are left out before"
        image = ImageFiles(
            paths=paths, resolution=resolution, channels=channels, boxes=self.boxes
        )
        return Split(labels=self.labels, keys=make_keys(self.names), image=image)


def listed_source(
    splits: dict[str, Listing],
    *,
    name: str,
    class_names: tuple[str, ...],
    made: str,
    notes: Iterable[str],
    options: Options,
    resolution: int = RESOLUTION,
) -> Source:
    """Images of files, without those that are missing; every class keeps one, or an error.

    A split without images is left out. ``resolution`` holds where --resolution is not given.
    """
    resolution, channels = options.resolution or resolution, options.channels or 3
    missing = [image for split in splits.values() for image in split.missing()]
    left = allow_missing(missing, name, options)
    made = f"{made}; {resolution}x{resolution}, {FILTER}"
    if missing:
        folder, file = missing_file(options.out, name)
        notes = [*notes, *_missing_notes(splits, class_names, folder.path(file))]
        made += f"; missing images left out: {len(set(missing)):,}"
        splits = {s: _present(listing) for s, listing in splits.items()}
    if bare := [s for s, listing in splits.items() if not listing.names]:
        notes = [*notes, f"left out, since no image is in it: {shorten(bare)}"]
    for split, listing in splits.items():
        held = np.bincount(listing.labels, minlength=len(class_names))
        absent = [class_names[c] for c in np.flatnonzero(held == 0)]
        if listing.names and absent and split != "train":
            notes = [*notes, f"{split} has no image of the classes {shorten(absent)}"]
    counts = np.bincount(splits["train"].labels, minlength=len(class_names))
    if not counts.all():
        empty = [class_names[c] for c in np.flatnonzero(counts == 0)]
        raise ValueError(
            f"--source ({options.source}) has no training image of {len(empty):,} of "
            f"{len(class_names):,} classes: {shorten(empty)}. Add some, or leave these classes "
            "out of the lists."
        )
    return Source(
        name=name,
        class_names=class_names,
        image_size=resolution,
        channels=channels,
        splits={
            s: part.split(resolution, channels) for s, part in splits.items() if part.names
        },
        made=made,
        mirrors=True,
        notes=tuple(notes),
        allow_missing=left,
    )


def missing_file(out: str, name: str) -> tuple[Storage, str]:
    """The folder --out, which may be a URL, and the file's name in it."""
    return Storage(out, "out"), f"{name}.missing.txt"


def allow_missing(
    missing: Sequence[str],
    name: str,
    options: Options,
    what: str = "images that the lists name",
) -> int:
    """Name what is missing in a file, and give how many images may still turn out bad.

    ``missing`` are file names as the lists write them, each counted once. More than
    --allow-missing of them is a ValueError. A file of an earlier run goes when all are there.
    """
    allowed = options.allow_missing or 0
    unique = list(dict.fromkeys(missing))
    folder, file = missing_file(options.out, name)
    if not unique:
        folder.remove(file)
        return allowed
    folder.write_bytes(file, "".join(f"{line}\n" for line in unique).encode())
    if len(unique) > allowed:
        raise ValueError(
            f"--source ({options.source}) lacks {len(unique):,} {what}, "
            f"--allow-missing is {allowed}. {folder.path(file)} names them all, the first is "
            f"{unique[0]}. "
            f"Add them, or go on without them by --allow-missing {len(unique)}."
        )
    return allowed - len(unique)


def numbered_lines(path: Path, option: str) -> list[tuple[int, str]]:
    """The lines of a list that are not blank, with their numbers from 1."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ValueError(f"{option} ({path}): there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{option} ({path}) cannot be read: {error}.") from error
    found = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ValueError(f"{option} ({path}) is empty.")
    return found


def _present(listing: Listing) -> Listing:
    return listing.take([i for i, path in enumerate(listing.paths) if path is not None])


def _missing_notes(
    splits: dict[str, Listing], class_names: tuple[str, ...], file: str
) -> Iterable[str]:
    for split, listing in splits.items():
        if not (gone := len(listing.missing())):
            continue
        every = np.bincount(listing.labels, minlength=len(class_names))
        lacks = every - np.bincount(_present(listing).labels, minlength=len(class_names))
        worst = sorted(np.flatnonzero(lacks), key=lambda c: -lacks[c])
        by_class = [f"{class_names[c]} {lacks[c]:,} of {every[c]:,}" for c in worst]
        yield f"{split} lacks {gone:,} images ({shorten(by_class)}); {file} names them"
