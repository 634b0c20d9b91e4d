"""webdataset: tars of samples that people already have, img2dataset's among them.

Images are written anew at the training resolution, so every one of them is decoded, and the
index is made.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.storage.wording import shorten
from data_prep.options import Options
from data_prep.readers.classes import KnownClasses, eval_notes, number_classes
from data_prep.readers.copies import Copies
from data_prep.readers.images import FILTER, RESOLUTION, load_image
from data_prep.readers.keys import make_keys
from data_prep.readers.listing import allow_missing, missing_file
from data_prep.readers.samples import Pool, check_labels, scan
from data_prep.source import BadImage, Source, Split
from data_prep.tars import read_range


def read_webdataset(name: str, options: Options) -> Source:
    """--source and --eval-source are tars, folders of tars, or URLs with braces.

    Labels come from --label-from; their number K is --classes, or found.
    """
    source, eval_source, classes = options.source, options.eval_source, options.classes
    assert source is not None
    label_from = options.label_from or "cls"
    resolution = options.resolution or RESOLUTION
    channels = options.channels or 3
    pools = {"train": scan(source, "--source", label_from)}
    if eval_source is not None:
        pools["eval"] = scan(eval_source, "--eval-source", label_from)
    bad = [line for pool in pools.values() for line in pool.bad]
    left = allow_missing(bad, name, options, "images or labels of samples")
    names: tuple[str, ...] = ()
    labels = {}
    for split, pool in pools.items():
        option = "--source" if split == "train" else "--eval-source"
        check_labels(pool, option, classes)
        every = [*pool.labels, *pool.lost]
        known = KnownClasses(names, split) if names else None
        names, numbers = number_classes(every, option, classes, known=known)
        labels[split] = numbers[: len(pool.labels)]
        _check_every_class(names, labels[split], option)
    notes = [note for pool in pools.values() for note in pool.notes()]
    if bad:
        file = missing_file(options.out, name)
        notes.append(f"left out {len(bad):,} samples without image or label; {file} names them")
    if eval_source is None:
        notes += eval_notes(labels["train"])
    splits = {
        split: _split(pool, labels[split], resolution, channels)
        for split, pool in pools.items()
    }
    return Source(
        name=name,
        class_names=names,
        image_size=resolution,
        channels=channels,
        splits={"train": splits["train"], "eval": splits.get("eval", splits["train"])},
        made=f"WebDataset tars with labels from {label_from}, {FILTER}",
        mirrors=True,
        notes=tuple(notes),
        allow_missing=left,
        done=Cleanup(tuple(pool.copies for pool in pools.values())),
    )


def _check_every_class(
    class_names: tuple[str, ...], labels: NDArray[np.int64], option: str
) -> None:
    counts = np.bincount(labels, minlength=len(class_names))
    if not counts.all():
        empty = [class_names[c] for c in np.flatnonzero(counts == 0)]
        raise ValueError(
            f"{option}: {len(empty):,} of {len(class_names):,} classes have no sample with an "
            f"image: {shorten(empty)}. Complete them, or leave these classes out."
        )


def _split(pool: Pool, labels: NDArray[np.int64], resolution: int, channels: int) -> Split:
    places = np.array(pool.places, np.int64)
    image = TarImages(
        copies=pool.copies,
        tars=places[:, 0],
        offsets=places[:, 1],
        sizes=places[:, 2],
        resolution=resolution,
        channels=channels,
    )
    # make_keys takes off a suffix, and what follows a dot in these is none.
    keys = make_keys(f"{name}.png" for name in pool.names)
    return Split(labels=labels, keys=keys, image=image)


@dataclass(frozen=True)
class Cleanup:
    """Removes this node's copies when they are not needed any more."""

    copies: tuple[Copies, ...]

    def __call__(self) -> None:
        for copies in self.copies:
            copies.remove()


@dataclass(frozen=True, kw_only=True)
class TarImages:
    """The images of a split, by their places in tars: ``Split.image``."""

    copies: Copies
    tars: NDArray[np.int64]
    """Shape (N,), which tar; offsets and sizes likewise, in bytes."""
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    resolution: int
    channels: int

    def __call__(self, i: int) -> NDArray[np.uint8]:
        tar, offset, size = int(self.tars[i]), int(self.offsets[i]), int(self.sizes[i])
        data = read_range(self.copies.path(tar), offset, size)
        try:
            return load_image(data, resolution=self.resolution, channels=self.channels)
        except BadImage as error:
            raise BadImage(f"{self.copies.urls[tar]} at byte {offset}: {error}") from error
