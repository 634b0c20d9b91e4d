"""The data set of real and generated images, as shards and in the forms that others read.

Shapes: N = training images, K = classes, (C, H, W) an image.
"""

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.balancing import provenance
from cbdm_scale.balancing.inputs import Inputs
from cbdm_scale.balancing.page import write_page
from cbdm_scale.balancing.rounds import Found
from cbdm_scale.cluster.options import to_stdout
from cbdm_scale.data.class_names import class_folders
from cbdm_scale.data.manifest import Manifest, dataset_folder, parse_manifest
from cbdm_scale.formats.files import staging, write_arrays
from cbdm_scale.formats.shards import CLASSIFIER, RawImages, real_split
from cbdm_scale.storage.disk import naming_the_disk
from cbdm_scale.storage.folder import Storage
from data_prep.source import Source, Split
from data_prep.writing import staging as local
from data_prep.writing.encode import Encoding
from data_prep.writing.shards import write_dataset

PAGE, TABLE, SUMMARY = "balance.html", "provenance.parquet", "balance.json"
READ_AT_ONCE = 256


@dataclass(frozen=True)
class _RealThenMade:
    """The real images, then the generated ones, by position."""

    real: Callable[[int], NDArray[np.uint8]]
    num_real: int
    made: Callable[[int], NDArray[np.uint8]]

    def __call__(self, i: int) -> NDArray[np.uint8]:
        return self.real(i) if i < self.num_real else self.made(i - self.num_real)


@contextmanager
def data_source(inputs: Inputs, found: Found) -> Iterator[Source]:
    """What ``write_dataset`` writes; the accepted images lie in a file meanwhile."""
    real, root = inputs.real, inputs.root
    splits = {name: real_split(real, root, name) for name in real.counts}
    train, keys, abouts, labels = splits["train"], [], [], []
    with tempfile.TemporaryDirectory(prefix="cbdm-balance-") as scratch:
        raw = Path(scratch, "images")
        with naming_the_disk(scratch, "TMPDIR"), open(raw, "wb") as file:
            for key, one, number, record in provenance.accepted(inputs, found):
                file.write(one.images.read([number])[0].transpose(1, 2, 0).tobytes())
                keys.append(key)
                abouts.append(record)
                labels.append(record["label"])
        shape = (real.image_size, real.image_size, real.channels)
        num_real = len(train.labels)
        splits["train"] = Split(
            labels=np.concatenate([train.labels, np.array(labels, np.int64)]),
            keys=[*train.keys, *keys],
            image=_RealThenMade(train.image, num_real, RawImages(str(raw), shape)),
            about=[*[None] * num_real, *abouts],
        )
        yield Source(
            name=inputs.name,
            class_names=real.class_names,
            image_size=real.image_size,
            channels=real.channels,
            splits=splits,
            made=inputs.made,
            mirrors=False,
        )


def what_is_there(inputs: Inputs, out: str) -> Manifest | None:
    """The same data set, if it is there whole; ValueError if another one is."""
    options, target = inputs.options, Storage(f"{out}/{inputs.name}", "out")
    if not target.exists("dataset.json"):
        return None
    try:
        there = parse_manifest(target.read_bytes("dataset.json"))
    except ValueError:
        there = None
    if there and there.source == inputs.made:
        return there
    if not options.force_overwrite:
        raise ValueError(
            f"out ({options.out}): {target.url} is there already, and is another data set. "
            "Give another --out or --dataset, or replace it with --force-overwrite."
        )
    return None


def missing_forms(inputs: Inputs, out: str) -> list[str]:
    """Names, in OUT, of the further forms that are asked for and not there."""
    suffixes = {"folders": "-folders", "npz": ".npz"}
    names = [f"{inputs.name}{suffixes[form]}" for form in inputs.options.also]
    return [
        name
        for name in names
        if inputs.options.force_overwrite or not Storage(out).exists(name)
    ]


def write_all(inputs: Inputs, found: Found, out: str, there: Manifest | None) -> Manifest:
    """OUT/<name> unless it is there, and further forms that are missing; each whole or not."""
    forms = missing_forms(inputs, out)
    with data_source(inputs, found) as source:
        manifest = there or _write_set(inputs, found, source, out)
        for name in forms:
            with staging(Storage(out, "out"), name) as place:
                (_write_npz if name.endswith(".npz") else _write_folders)(source, place)
    return manifest


def _write_set(inputs: Inputs, found: Found, source: Source, out: str) -> Manifest:
    """OUT/<name>, dataset.json last."""
    if "://" in out:
        target = Storage(f"{out}/{inputs.name}", "out")
        if target.exists("dataset.json"):  # another one, that is to be replaced
            target.remove("dataset.json")  # first: without it the rest counts as unfinished
            target.remove("")
        _write_extras(inputs, found, target)
        return _write(source, target.url, inputs)
    folder = Path(out, inputs.name)
    with local.staging(folder, wait=False, log=to_stdout) as hidden:
        _write_extras(inputs, found, Storage(str(hidden), "out"))
        manifest = _write(source, str(hidden), inputs)
        local.put_in_place(hidden, folder, inputs.options.force_overwrite)
    return manifest


def _write(source: Source, out: str, inputs: Inputs) -> Manifest:
    options = inputs.options
    return write_dataset(
        source,
        out,
        samples_per_shard=options.samples_per_shard,
        seed=options.seed,
        log=to_stdout,
    )


def _write_extras(inputs: Inputs, found: Found, target: Storage) -> None:
    target.write_bytes(TABLE, provenance.table(inputs, found))
    summary = provenance.summary(inputs, found)
    target.write_bytes(SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
    target.write_bytes(PAGE, write_page(inputs, found).encode())
    there = Storage(dataset_folder(inputs.root, inputs.real.name))
    if there.exists(CLASSIFIER):
        target.write_bytes(CLASSIFIER, there.read_bytes(CLASSIFIER))


def _write_folders(source: Source, target: Path) -> None:
    """target/<class>/<key>.png, marked where generated, and labels.csv: path, label, generated.

    A generated image's record is in the last column, as JSON.
    """
    train, encoding = source.splits["train"], Encoding()
    folders = class_folders(len(source.class_names), source.class_names)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["path", "label", "generated", "about"])
    for i, label in enumerate(train.labels.tolist()):
        about = train.about[i]
        name = f"{folders[label]}/{train.keys[i]}.png"
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoding.encode(train.image(i), generated=about is not None))
        record = "" if about is None else json.dumps(about, sort_keys=True)
        lines.writerow([name, source.class_names[label], int(about is not None), record])
    (target / "labels.csv").write_text(text.getvalue(), "utf-8")


def _write_npz(source: Source, target: Path) -> None:
    """The layout of ADM, real images first."""
    train = source.splits["train"]
    num = len(train.labels)
    parts = (
        np.stack([train.image(i) for i in range(begin, min(begin + READ_AT_ONCE, num))])
        for begin in range(0, num, READ_AT_ONCE)
    )
    shape = (source.channels, source.image_size, source.image_size)
    write_arrays(target, parts, train.labels, shape, source.class_names)


def needed_bytes(inputs: Inputs, num_made: int) -> int:
    """Of the disk at most: the images made as pixels, those taken as pixels and as files."""
    pixels = inputs.real.channels * inputs.real.image_size**2
    total = inputs.train.count + sum(inputs.need)
    forms = 1 + len(inputs.options.also)
    return num_made * pixels + sum(inputs.need) * pixels + forms * total * (pixels + 3_000)


def check_room(inputs: Inputs, out: str, num_made: int) -> None:
    """OSError before the work if a local disk has less room than it is sure to take."""
    if "://" in out:
        return
    there = next(path for path in (Path(out), *Path(out).parents) if path.exists())
    free, needed = shutil.disk_usage(there).free, needed_bytes(inputs, num_made)
    if free < needed:
        raise OSError(
            f"out ({out}) has {free / 1e9:,.1f} GB free, and up to {needed / 1e9:,.1f} GB are "
            "needed. Free space there, or give another --out."
        )
