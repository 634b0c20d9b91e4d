"""What a data set on disk promises: dataset.json, and the checks that the rest agrees with it.

    <root>/<name>/dataset.json      written last: a folder without it is an unfinished one
    <root>/<name>/shards.parquet    one row a shard: file, samples, bytes, sha256
    <root>/<name>/index.parquet     one row a sample, one row group a shard, in the same order
                                    (a folder of parts where there are thousands of shards)
    <root>/<name>/<split>/*.tar     WebDataset tars; splits are train, eval and often test

The root is a local path or any URL that fsspec opens. K = number of classes.
"""

import hashlib
import json
import shlex
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cbdm_scale.data.groups import Group
from cbdm_scale.data.index_files import (
    check_one_file,
    check_partitioned,
    in_split,
    is_partitioned,
    mixing_warning,
    parse_shards,
    part_name,
)
from cbdm_scale.storage.checks import NAME
from cbdm_scale.storage.json import parse_json, structure
from cbdm_scale.storage.remote import Store, StoreError, open_url
from cbdm_scale.storage.wording import clip, prog_of, shorten

FORMAT_VERSION = 1
PUBLISHED = (
    *("digits_lt", "cifar10_lt", "cifar100_lt", "cifar10", "cifar100"),
    *("imagenet_lt", "cub200", "celeba5", "photos16"),
)
"""Data sets that have a reader of their own; any other name is a user's."""
SIZES_LOOKED_AT = 16
"""Tars whose size is looked at in a data set whose index is in parts; else all of them."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of dataset.json."""

    name: str
    class_names: tuple[str, ...]
    image_size: int
    """Height and width in pixels."""
    channels: int
    counts: dict[str, tuple[int, ...]]
    """Images per class, of every split."""
    groups: tuple[Group, ...]
    """Many, medium or few, per class, by the training counts."""
    shards_sha256: str
    source: str
    """One line: how the data set was made."""
    real_counts: tuple[int, ...] = ()
    """Training images per class that are real, where others were generated: the groups are by
    these. () where all are real."""

    def __post_init__(self) -> None:
        k = len(self.class_names)
        if self.image_size < 1 or self.channels not in (1, 3):
            raise ValueError(
                f"image size {self.image_size} and {self.channels} channels are not an image"
            )
        if "train" not in self.counts:
            raise ValueError(f"no train split among {shorten(sorted(self.counts))}")
        for split, counts in self.counts.items():
            if len(counts) != k or min(counts) < 0 or not sum(counts):
                raise ValueError(f"counts of split {split} are not {k} numbers of images")
        real, train = self.real_counts, self.counts["train"]
        if real and (
            len(real) != k or any(not 0 <= r <= n for r, n in zip(real, train, strict=True))
        ):
            raise ValueError(f"real counts are not {k} numbers up to those of the train split")
        if len(self.groups) != k:
            raise ValueError(f"groups are not {k}, one a class")

    @property
    def num_classes(self) -> int:
        """K"""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any byte of the shards or of this file."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def num_images(self, split: str) -> int:
        """Images of a split."""
        return sum(self.counts[split])

    def to_dict(self) -> dict[str, Any]:
        """The content of dataset.json, as plain data."""
        totals = {split: self.num_images(split) for split in self.counts}
        plain = asdict(self) | {"format_version": FORMAT_VERSION, "totals": totals}
        if not self.real_counts:
            del plain["real_counts"]
        return plain

    def to_json(self) -> bytes:
        """The bytes of dataset.json: the same data, the same bytes."""
        return (json.dumps(self.to_dict(), sort_keys=True, indent=1) + "\n").encode()


def parse_manifest(text: bytes) -> Manifest:
    """The inverse of ``Manifest.to_json``; a ValueError says what is wrong."""
    try:
        raw = parse_json(text, "it")
    except ValueError as error:
        raise ValueError(f"is cut short or not JSON ({error})") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("format_version"), int):
        raise ValueError("has no format_version")
    if raw["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"has format version {raw['format_version']}, newer than the {FORMAT_VERSION} that "
            "this cbdm_scale reads: update cbdm_scale"
        )
    try:
        known = {f.name: raw[f.name] for f in fields(Manifest) if f.name in raw}
        manifest: Manifest = structure(Manifest, known, "")
    except ValueError as error:
        raise ValueError(f"is not as data_prep writes it: {clip(error)}") from None
    if not NAME.fullmatch(manifest.name):  # it becomes part of paths
        raise ValueError(
            f"has the name {manifest.name[:80]!r}, which is not of letters, digits, _ . and -"
        )
    return manifest


def canonical_name(name: str) -> str:
    """Names take - and _ alike; folders are written with _."""
    return name.replace("-", "_")


def dataset_folder(root: str, name: str) -> str:
    """The path or URL of a data set's folder."""
    return f"{str(root).rstrip('/')}/{canonical_name(name)}"


def prep_command(root: str, name: str) -> str:
    """The command that makes a data set: a published one, or one of the user's own."""
    if canonical_name(name) not in PUBLISHED:
        words = f"--name {shlex.quote(name)} --out {shlex.quote(root)}"
        return f"{prog_of('prepare')} folder --source DIR {words}"
    dashed = canonical_name(name).replace("_", "-")
    source = "" if dashed == "digits-lt" else " --source DIR"
    if dashed == "imagenet-lt":
        source += " --train-list ImageNet_LT_train.txt"
    return f"{prog_of('prepare')} {dashed}{source} --out {shlex.quote(root)}"


def open_folder(root: str, name: str) -> tuple[Store, str]:
    """The store of a data set and the folder's path on it."""
    fs, native, path = open_url(dataset_folder(root, name), "data.root", root, once=True)
    return Store(fs, native), path


def read_shards(fs: Store, folder: str) -> tuple[bytes, list[dict[str, Any]]]:
    """shards.parquet as bytes and as rows {file, samples, bytes, sha256}."""
    raw: bytes = fs.cat_file(f"{folder}/shards.parquet")
    return raw, parse_shards(raw, with_sha256=True).to_pylist()


def read_manifest(root: str, name: str) -> Manifest:
    """Read dataset.json and check shards.parquet, index.parquet and the tars' sizes against it.

    Reads no sample and lists each folder once, so it is quick on a store far away too. Where
    the index is in parts, nothing is listed: some tars are looked at, a part of the index is
    checked when it is first read, and a tar that is short or gone is found on reading.
    """
    fs, folder = open_folder(root, name)
    where = dataset_folder(root, name)
    command = prep_command(root, name)
    again = f"Make it again: {command} --force-overwrite"
    try:
        text: bytes = fs.cat_file(f"{folder}/dataset.json")
    except (FileNotFoundError, NotADirectoryError):
        if not fs.has_listings or not fs.isdir(folder):
            raise ValueError(
                f"data.root ({root}) holds no data set {canonical_name(name)}: {where} does "
                f"not exist.{_others(root)} Make it: {command}"
            ) from None
        raise ValueError(
            f"data.root ({root}): {where} has no dataset.json, so it is unfinished. {again}"
        ) from None
    try:
        manifest = parse_manifest(text)
    except ValueError as error:
        raise ValueError(
            f"data.root ({root}): {where}/dataset.json {clip(error, 400)}. {again}"
        ) from None
    try:
        _check_files(fs, folder, manifest)
    except (ValueError, FileNotFoundError) as error:  # pyarrow's errors are ValueErrors
        raise ValueError(f"data.root ({root}): {where}: {clip(error, 400)}. {again}") from None
    return manifest


def _others(root: str) -> str:
    """The names of what a local root holds, as a sentence; "" where there is nothing."""
    found = sorted(path.parent.name for path in Path(root).expanduser().glob("*/dataset.json"))
    return f" There: {shorten(found)}." if found else ""


def _check_files(fs: Store, folder: str, manifest: Manifest) -> None:
    try:
        raw: bytes = fs.cat_file(f"{folder}/shards.parquet")
        table = parse_shards(raw)
    except FileNotFoundError:
        raise ValueError("shards.parquet is missing") from None
    except StoreError:
        raise
    except (ValueError, OSError) as error:
        raise ValueError(f"shards.parquet cannot be read ({clip(error)})") from None
    if hashlib.sha256(raw).hexdigest() != manifest.shards_sha256:
        raise ValueError("shards.parquet does not have the sha256 that dataset.json names")
    if is_partitioned(table):
        _check_some_sizes(fs, folder, table)
        one_class = check_partitioned(table, manifest.num_classes, list(manifest.counts))
    else:
        shards = table.to_pylist()
        if fs.has_listings:  # elsewhere a shard is checked when it arrives
            _check_sizes(fs, folder, shards)
        try:
            stream = fs.open(f"{folder}/index.parquet", "rb")
        except FileNotFoundError:
            raise ValueError("index.parquet is missing") from None
        try:
            one_class = check_one_file(stream, shards, manifest.num_classes)
        except StoreError:
            raise
        except OSError as error:  # Arrow's
            raise ValueError(f"index.parquet cannot be read ({clip(error)})") from None
    if one_class:
        warnings.warn(f"{folder}: {mixing_warning(one_class)}", stacklevel=3)
    for split in manifest.counts:
        rows = int(in_split(table, split)["samples"].to_numpy().sum())
        if rows != manifest.num_images(split):
            raise ValueError(
                f"the shards hold {rows} {split} samples, dataset.json says "
                f"{manifest.num_images(split)}"
            )


def _check_sizes(fs: Store, folder: str, shards: list[dict[str, Any]]) -> None:
    listed = fs.find(folder)
    sizes = {path.removeprefix(folder + "/"): info["size"] for path, info in listed.items()}
    for shard in shards:
        _compare_size(shard, sizes.get(shard["file"]))


def _check_some_sizes(fs: Store, folder: str, table: Any) -> None:
    """Look at tars over the whole data set, and at the first and the last part of the index."""
    step = max(1, (table.num_rows - 1) // (SIZES_LOOKED_AT - 1))
    some = table.slice(0).take(list(range(0, table.num_rows, step)))
    for shard in some.to_pylist():
        _compare_size(shard, _size_of(fs, f"{folder}/{shard['file']}"))
    parts = table["part"].to_numpy()
    for part in (int(parts.min()), int(parts.max())):
        if _size_of(fs, f"{folder}/{part_name(part)}") is None:
            raise ValueError(f"{part_name(part)} is missing")


def _compare_size(shard: dict[str, Any], size: int | None) -> None:
    if size != shard["bytes"]:
        found = "is missing" if size is None else f"has {size} bytes"
        raise ValueError(f"{shard['file']} {found}, shards.parquet says {shard['bytes']} bytes")


def _size_of(fs: Store, path: str) -> int | None:
    try:
        size = fs.size(path)
    except FileNotFoundError:
        return None
    return None if size is None else int(size)
