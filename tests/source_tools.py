"""Sources for tests of the writer: digits some of which are bad, or that stop somewhere."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.readers.digits import read_digits_lt
from data_prep.source import BadImage, Source, Split


@dataclass
class Watched:
    """The images of a split: rows in ``bad`` are, and row ``stop`` hangs after a sign."""

    split: Split
    bad: tuple[int, ...] = ()
    stop: int | None = None
    sign: Path | None = None
    asked: list[int] = field(default_factory=list)

    def __call__(self, row: int) -> NDArray[np.uint8]:
        self.asked.append(row)
        if row == self.stop:
            assert self.sign is not None
            self.sign.touch()
            time.sleep(1000)
        if row in self.bad:
            raise BadImage("is no image")
        return self.split.image(row)


def few_digits() -> Source:
    """The digits, with 600 images in eval: they are written in a third of the time."""
    source = read_digits_lt()
    few = source.splits["eval"].take(np.arange(600))
    return replace(source, splits=source.splits | {"eval": few})


def watched(source: Source | None = None, **changes) -> tuple[Source, Watched]:
    """The digits, with the images of eval watched."""
    source = source or read_digits_lt()
    allow_missing = changes.pop("allow_missing", 0)
    images = Watched(source.splits["eval"], **changes)
    splits = source.splits | {"eval": replace(source.splits["eval"], image=images)}
    return replace(source, splits=splits, allow_missing=allow_missing), images


def pixels_of(split: Split) -> NDArray[np.uint8]:
    """All images of a split at once, (N, C, H, W)."""
    return np.stack([split.image(i).transpose(2, 0, 1) for i in range(len(split.labels))])
