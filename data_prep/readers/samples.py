"""What tars of other people's samples hold: which images, and with which labels.

A sample is the members whose names agree up to the first dot of the last part: 000000012.jpg,
000000012.cls, 000000012.json. They need not stand side by side.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from data_prep.readers.braces import expand_braces
from data_prep.readers.copies import Copies, is_remote
from data_prep.readers.foreign_tars import Member, list_members
from data_prep.readers.sample_labels import BadSample, label_reader

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")
NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", flags=re.DOTALL)


@dataclass
class Pool:
    """What the tars of one split hold."""

    copies: Copies
    names: list[str] = field(default_factory=list)
    labels: list[int | str] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    """Tar, first byte and size of each image."""
    bad: list[str] = field(default_factory=list)
    """Samples left out, each with its reason."""
    lost: list[int | str] = field(default_factory=list)
    """Labels of samples left out: their classes are still classes."""
    ignored: int = 0
    """Members that are part of no sample."""

    def notes(self) -> tuple[str, ...]:
        if not self.ignored:
            return ()
        return (f"ignored {self.ignored:,} members without a key or a suffix",)


def find_tars(source: str, option: str) -> list[str]:
    """The tars that an option stands for: braces, a local folder, a local pattern with *."""
    tars: list[str] = []
    for word in expand_braces(source, option):
        word = word.removeprefix("file://")
        local = Path(word).expanduser()
        if is_remote(word):
            tars.append(word)
        elif local.is_dir():
            tars += sorted(map(str, local.glob("*.tar")))
        elif local.exists():
            tars.append(str(local))
        else:
            tars += sorted(glob(str(local))) or [str(local)]
    twice = [tar for tar, count in Counter(tars).items() if count > 1]
    lost = [tar for tar in tars if not is_remote(tar) and not Path(tar).is_file()]
    if not tars or twice or lost:
        why = f"names {twice[0]} twice" if twice else "holds no .tar"
        why = f"{len(lost):,} tars are not there, the first is {lost[0]}" if lost else why
        raise ValueError(
            f"{option} ({source}): {why}. Give a tar, a folder of tars, or names with braces "
            "such as 'URL-{000000..000123}.tar' (in quotes)."
        )
    return tars


def scan(source: str, option: str, label_from: str) -> Pool:
    read_label = label_reader(label_from)
    copies = Copies.of(find_tars(source, option))
    copies.fetch_all()
    pool = Pool(copies)
    for tar, url in enumerate(copies.urls):
        path = copies.path(tar)
        for key, parts in _samples(list_members(path, url), url, pool).items():
            where = f"{key!r} of {url}"
            label: int | str | None = None
            try:
                label = read_label(parts, path)
                image = _image_of(parts)
            except BadSample as error:
                pool.bad.append(f"{where}: {error}")
                if label is not None:
                    pool.lost.append(label)
            else:
                pool.labels.append(label)
                pool.places.append((tar, image.offset, image.size))
                pool.names.append(f"{Path(url).stem}/{key}")
    if not pool.names:
        raise ValueError(
            f"{option} ({source}): no sample has an image and a label"
            + (f"; the first: {pool.bad[0]}" if pool.bad else "")
        )
    return pool


def _samples(members: list[Member], url: str, pool: Pool) -> dict[str, dict[str, Member]]:
    """Key -> suffix -> member, in the order of the tar."""
    samples: dict[str, dict[str, Member]] = {}
    for member in members:
        match = NAME.fullmatch(member.name)
        if match is None:
            pool.ignored += 1
            continue
        parts, suffix = samples.setdefault(match[1], {}), match[2].lower()
        if suffix in parts:
            raise ValueError(
                f"{url} holds {member.name!r} twice (letter case aside): which is the sample's?"
            )
        parts[suffix] = member
    return samples


def _image_of(parts: dict[str, Member]) -> Member:
    found = [suffix for suffix in IMAGES if suffix in parts]
    if len(found) != 1:
        has = f"several images ({', '.join(found)})" if found else "no image"
        raise BadSample(f"it has {has}")
    return parts[found[0]]


def check_labels(pool: Pool, option: str, classes: int | None) -> None:
    """ValueError names a sample whose label cannot be, whatever K is."""
    words = [label for label in (*pool.labels, *pool.lost) if isinstance(label, str)]
    if 0 < len(words) < len(pool.labels) + len(pool.lost):
        raise ValueError(
            f"{option}: some labels are integers, some are names, such as {words[0]!r}. Make "
            "them all of one kind."
        )
    for label, name in zip(pool.labels, pool.names, strict=True):
        if isinstance(label, int) and not 0 <= label < (classes or label + 1):
            end = "" if classes is None else f"{classes - 1} (--classes)"
            raise ValueError(f"{option}: {name!r} has label {label}, outside 0..{end}")
