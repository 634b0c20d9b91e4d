"""What tars of other people's samples hold: which images, and with which labels.

A sample is the members whose names agree but for the suffix: 000000012.jpg, 000000012.cls,
000000012.json. They need not stand side by side. WebDataset takes what stands before the
first dot for the key, so that a.mask.png is a part of sample a; that is how such a name is read
unless it has an image and a label of its own, or there is no sample a. The label is an ASCII
integer in .cls, or a field of the .json.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cbdm_scale.data.class_names import Name, class_key
from cbdm_scale.data.images import SUFFIXES
from data_prep.readers.copies import Copies
from data_prep.readers.webdataset_tars import find_tars, list_members
from data_prep.tars import Member, read_range, sample_key

INTEGER = re.compile(rb"\s*([+-]?[0-9]{1,18})\s*")
LABELS = "cls", "json"
LONGEST_LABEL = 1 << 26
"""Bytes of a .cls or .json beyond which it is not read."""
LabelReader = Callable[[dict[str, Member], Path], Name]


class BadSample(ValueError):
    """A sample without an image or a label."""


@dataclass
class Pool:
    """What the tars of one split hold."""

    copies: Copies
    names: list[str] = field(default_factory=list)
    labels: list[Name] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    """Tar, first byte and size of each image."""
    bad: list[str] = field(default_factory=list)
    """Samples left out, each with its reason."""
    lost: list[Name] = field(default_factory=list)
    """Labels of samples left out: their classes are still classes."""
    ignored: int = 0
    """Members that are part of no sample."""
    parts: list[str] = field(default_factory=list)
    """Members that go with a sample and are neither its image nor its label."""

    def notes(self) -> tuple[str, ...]:
        """What the user should know of members that were passed over."""
        notes = []
        if self.ignored:
            notes.append(f"ignored {self.ignored:,} members without a key or a suffix")
        if self.parts:
            notes.append(
                f"ignored {len(self.parts):,} members that only go with a sample, such as "
                f"{self.parts[0]!r}"
            )
        return tuple(notes)


def scan(source: str, option: str, label_from: str) -> Pool:
    """Fetch the tars that an option names and read which samples they hold, and their labels.

    ValueError if a tar is damaged, or if no sample has an image and a label.
    """
    read_label = label_reader(label_from)
    label_suffix = label_from.partition(":")[0]
    copies = Copies.of(find_tars(source, option))
    copies.fetch_all()
    pool = Pool(copies)
    for tar, url in enumerate(copies.urls):
        path = copies.path(tar)
        for key, parts in _samples(list_members(path, url), url, label_suffix, pool):
            where = f"{key!r} of {url}"
            label: Name | None = None
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


def _samples(
    members: list[Member], url: str, label_suffix: str, pool: Pool
) -> Iterator[tuple[str, dict[str, Member]]]:
    """(key, {suffix: member}); samples in the order in which the tar begins them."""
    samples: dict[str, dict[str, Member]] = {}
    owners: dict[str, str] = {}
    for member in members:
        owner = sample_key(member.name)
        if owner is None:
            pool.ignored += 1
            continue
        key, _, suffix = member.name.rpartition(".")
        owners[key] = owner
        parts, suffix = samples.setdefault(key, {}), suffix.lower()
        if parts.setdefault(suffix, member) is not member and suffix in (*SUFFIXES, *LABELS):
            raise ValueError(
                f"{url} holds {member.name!r} twice (letter case aside): which is the sample's?"
            )
    for key, parts in samples.items():
        whole = label_suffix in parts and any(suffix in parts for suffix in SUFFIXES)
        if not whole and owners[key] != key and owners[key] in samples:
            pool.parts += [member.name for member in parts.values()]
        else:
            yield key, parts


def _image_of(parts: dict[str, Member]) -> Member:
    found = [suffix for suffix in SUFFIXES if suffix in parts]
    if len(found) != 1:
        has = f"several images ({', '.join(found)})" if found else "no image"
        raise BadSample(f"it has {has}")
    return parts[found[0]]


def check_labels(pool: Pool, option: str, classes: int | None) -> None:
    """ValueError names a sample whose label cannot be, whatever K is."""
    every = [*pool.labels, *pool.lost]
    words = [label for label in every if isinstance(class_key(label), str)]
    if words and any(isinstance(label, int) for label in every):
        raise ValueError(
            f"{option}: some labels are integers, some are names, such as {words[0]!r}. Make "
            "them all of one kind."
        )
    for label, name in zip(pool.labels, pool.names, strict=True):
        if isinstance(label, int) and not 0 <= label < (classes or label + 1):
            end = "" if classes is None else f"{classes - 1} (--classes)"
            raise ValueError(f"{option}: {name!r} has label {label}, outside 0..{end}")


def label_reader(label_from: str) -> LabelReader:
    """What finds the label of a sample, by the option --label-from."""
    if label_from == "cls":
        return _label_of_cls
    kind, _, json_field = label_from.partition(":")
    if kind != "json" or not json_field:
        raise ValueError(
            f"--label-from ({label_from}) must be cls, or json: and the name of a field, such "
            "as json:label."
        )
    return partial(_label_of_json, json_field)


def _label_of_cls(parts: dict[str, Member], path: Path) -> int:
    text = _content(parts, "cls", path)
    if not INTEGER.fullmatch(text):
        raise BadSample(f"its .cls holds {text[:20]!r}, which is no integer")
    return int(text)


def _label_of_json(json_field: str, parts: dict[str, Member], path: Path) -> Name:
    try:
        record = json.loads(_content(parts, "json", path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadSample):
            raise
        raise BadSample(f"its .json is none: {error}") from None
    label = record.get(json_field) if isinstance(record, dict) else None
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise BadSample(
            f"field {json_field} of its .json is {label!r}, neither an integer nor a name"
        )
    return label


def _content(parts: dict[str, Member], suffix: str, path: Path) -> bytes:
    if suffix not in parts:
        raise BadSample(f"it has no .{suffix}")
    member = parts[suffix]
    if member.size > LONGEST_LABEL:
        raise BadSample(f"its .{suffix} has {member.size:,} bytes")
    return read_range(path, member.offset, member.size)
