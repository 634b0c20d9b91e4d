"""What a data set on disk promises: dataset.json, and the checks that the rest agrees with it.

    <root>/<name>/dataset.json      written last: a folder without it is an unfinished one
    <root>/<name>/shards.parquet    one row a shard: file, samples, bytes, sha256
    <root>/<name>/index.parquet     one row a sample, one row group a shard, in the same order
    <root>/<name>/<split>/*.tar     WebDataset tars; splits are train, eval and often test

The root is a local path or any URL that fsspec opens. K = number of classes.
"""

import hashlib
import json
import warnings
from dataclasses import dataclass
from typing import Any

from cbdm_scale.labels import GROUPS, Group
from cbdm_scale.remote import Store, StoreError, open_url

FORMAT_VERSION = 1
PUBLISHED = (
    *("digits_lt", "cifar10_lt", "cifar100_lt", "cifar10", "cifar100"),
    *("imagenet_lt", "cub200", "celeba5"),
)
"""Data sets that have a reader of their own; any other name is a user's."""
SMALLEST_TELLING_SHARD = 20
"""Samples from which on a shard of a single class is worth a warning."""


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

    def __post_init__(self) -> None:
        k = len(self.class_names)
        if self.image_size < 1 or self.channels not in (1, 3):
            raise ValueError(
                f"image size {self.image_size} and {self.channels} channels are not an image"
            )
        if "train" not in self.counts:
            raise ValueError(f"no train split among {sorted(self.counts)}")
        for split, counts in self.counts.items():
            if len(counts) != k or min(counts) < 0 or not sum(counts):
                raise ValueError(f"counts of split {split} are not {k} numbers of images")
        if len(self.groups) != k or not set(self.groups) <= set(GROUPS):
            raise ValueError(f"groups are not one of {', '.join(GROUPS)} for {k} classes")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any byte of the shards or of this file."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def num_images(self, split: str) -> int:
        return sum(self.counts[split])

    def to_dict(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "class_names": list(self.class_names),
            "image_size": self.image_size,
            "channels": self.channels,
            "counts": {split: list(counts) for split, counts in self.counts.items()},
            "groups": list(self.groups),
            "totals": {split: self.num_images(split) for split in self.counts},
            "shards_sha256": self.shards_sha256,
            "source": self.source,
        }

    def to_json(self) -> bytes:
        return (json.dumps(self.to_dict(), sort_keys=True, indent=1) + "\n").encode()


def parse_manifest(text: bytes) -> Manifest:
    """The inverse of ``Manifest.to_json``; a ValueError says what is wrong."""
    try:
        raw = json.loads(text)
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
        manifest = Manifest(
            name=str(raw["name"]),
            class_names=tuple(map(str, raw["class_names"])),
            image_size=int(raw["image_size"]),
            channels=int(raw["channels"]),
            counts={s: tuple(map(int, c)) for s, c in raw["counts"].items()},
            groups=tuple(raw["groups"]),
            shards_sha256=str(raw["shards_sha256"]),
            source=str(raw["source"]),
        )
    except KeyError as error:
        raise ValueError(f"lacks {error}") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"is not as data_prep writes it: {error}") from None
    return manifest


def canonical_name(name: str) -> str:
    """Names take - and _ alike; folders are written with _."""
    return name.replace("-", "_")


def dataset_folder(root: str, name: str) -> str:
    return f"{str(root).rstrip('/')}/{canonical_name(name)}"


def prep_command(root: str, name: str) -> str:
    """The command that makes a data set: a published one, or one of the user's own."""
    if canonical_name(name) not in PUBLISHED:
        return f"python -m data_prep folder --source DIR --name {name} --out {root}"
    dashed = canonical_name(name).replace("_", "-")
    source = "" if dashed == "digits-lt" else " --source DIR"
    if dashed == "imagenet-lt":
        source += " --list ImageNet_LT_train.txt"
    return f"python -m data_prep {dashed}{source} --out {root}"


def open_folder(root: str, name: str) -> tuple[Store, str]:
    """The store of a data set and the folder's path on it."""
    fs, native, path = open_url(dataset_folder(root, name), "data.root", root, once=True)
    return Store(fs, native), path


def read_shards(fs: Store, folder: str) -> tuple[bytes, list[dict[str, Any]]]:
    """shards.parquet as bytes and as rows {file, samples, bytes, sha256}.

    Here and for the index: from memory and without Arrow's threads. Those may outlive the call
    and then abort the process, or hang it, at exit (apache/arrow issues 33975 and 50482).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw: bytes = fs.cat_file(f"{folder}/shards.parquet")
    with pq.ParquetFile(pa.BufferReader(raw)) as table:
        return raw, table.read(use_threads=False).to_pylist()


def read_manifest(root: str, name: str) -> Manifest:
    """Read dataset.json and check shards.parquet, index.parquet and the tars' sizes against it.

    Reads no sample and lists each folder once, so it is quick on a store far away too.
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
                f"not exist. Make it: {command}"
            ) from None
        raise ValueError(
            f"data.root ({root}): {where} has no dataset.json, so it is unfinished. {again}"
        ) from None
    try:
        manifest = parse_manifest(text)
    except ValueError as error:
        raise ValueError(f"data.root ({root}): {where}/dataset.json {error}. {again}") from None
    try:
        _check_files(fs, folder, manifest)
    except (ValueError, FileNotFoundError) as error:  # pyarrow's errors are ValueErrors
        raise ValueError(f"data.root ({root}): {where}: {error}. {again}") from None
    return manifest


def _check_files(fs: Store, folder: str, manifest: Manifest) -> None:
    try:
        raw, shards = read_shards(fs, folder)
    except FileNotFoundError:
        raise ValueError("shards.parquet is missing") from None
    except StoreError:
        raise
    except (ValueError, OSError) as error:
        raise ValueError(f"shards.parquet cannot be read ({error})") from None
    if hashlib.sha256(raw).hexdigest() != manifest.shards_sha256:
        raise ValueError("shards.parquet does not have the sha256 that dataset.json names")
    if fs.has_listings:  # elsewhere a shard is checked when it arrives
        _check_sizes(fs, folder, shards)
    _check_index(fs, folder, manifest, shards)


def _check_sizes(fs: Store, folder: str, shards: list[dict[str, Any]]) -> None:
    listed = fs.find(folder)
    sizes = {path.removeprefix(folder + "/"): info["size"] for path, info in listed.items()}
    for shard in shards:
        size = sizes.get(shard["file"])
        if size != shard["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise ValueError(
                f"{shard['file']} {found}, shards.parquet says {shard['bytes']} bytes"
            )


def _check_index(
    fs: Store, folder: str, manifest: Manifest, shards: list[dict[str, Any]]
) -> None:
    """Compare index.parquet's footer (rows and label range per row group) with the rest."""
    import pyarrow.parquet as pq

    try:
        stream = fs.open(f"{folder}/index.parquet", "rb")
    except FileNotFoundError:
        raise ValueError("index.parquet is missing") from None
    with stream, pq.ParquetFile(stream) as index:
        meta = index.metadata
        column = index.schema_arrow.get_field_index("label")
        if column < 0 or meta.num_row_groups != len(shards):
            raise ValueError(
                f"index.parquet has {meta.num_row_groups} row groups and "
                f"{'no' if column < 0 else 'a'} label column; expected one per shard "
                f"({len(shards)})"
            )
        one_class = []
        for i, shard in enumerate(shards):
            group = meta.row_group(i)
            if group.num_rows != shard["samples"]:
                raise ValueError(
                    f"index.parquet has {group.num_rows} samples of {shard['file']}, "
                    f"shards.parquet {shard['samples']}"
                )
            low, high = _label_range(index, i, group.column(column).statistics)
            if low < 0 or high >= manifest.num_classes:
                raise ValueError(
                    f"index.parquet has label {low if low < 0 else high} in {shard['file']}, "
                    f"outside 0..{manifest.num_classes - 1}"
                )
            if low == high and group.num_rows >= SMALLEST_TELLING_SHARD:
                one_class.append(shard["file"])
        if one_class:
            _warn_of_one_class(folder, one_class)
    for split in manifest.counts:
        rows = sum(s["samples"] for s in shards if s["file"].startswith(split + "/"))
        if rows != manifest.num_images(split):
            raise ValueError(
                f"the shards hold {rows} {split} samples, dataset.json says "
                f"{manifest.num_images(split)}"
            )


def _label_range(index: Any, row_group: int, statistics: Any) -> tuple[int, int]:
    if statistics is not None and statistics.has_min_max:
        return int(statistics.min), int(statistics.max)
    labels = index.read_row_group(row_group, columns=["label"], use_threads=False)["label"]
    return min(labels.to_pylist()), max(labels.to_pylist())


def _warn_of_one_class(folder: str, files: list[str]) -> None:
    warnings.warn(
        f"{len(files)} shards of {folder} hold a single class each ({', '.join(files[:3])}"
        f"{', ...' if len(files) > 3 else ''}): batches will be mixed less well than with "
        "data_prep's own shards, which spread the classes over all of them",
        stacklevel=4,
    )
