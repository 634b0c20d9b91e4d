"""What a reader hands to the writer: images by position, their labels and their keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class BadImage(ValueError):
    """An image of the source that is missing, does not decode or is refused; says why."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The images of one split; ``image`` is called once for each, in any order, anywhere.

    It pickles, since other processes call it, and opens what it needs when it is called.
    """

    labels: NDArray[np.int64]
    """Shape (N,)."""
    keys: Sequence[str]
    """Names of the N samples, unique within the split, without dots."""
    image: Callable[[int], NDArray[np.uint8]]
    """Position in 0..N-1 -> (H, W, C) uint8; BadImage where there is none."""
    about: Sequence[Mapping[str, Any] | None] = ()
    """(N,) where the images that were generated come from, None for the real ones; () where
    all are real. Plain data: it becomes the sample's .json, and the image's file is marked."""

    @property
    def is_real(self) -> NDArray[np.bool_]:
        """(N,) whether the images were not generated."""
        if not self.about:
            return np.ones(len(self.labels), bool)
        return np.array([about is None for about in self.about])

    @classmethod
    def of_arrays(
        cls, images: NDArray[np.uint8], labels: NDArray[np.int64], prefix: str
    ) -> "Split":
        """Images (N, H, W, C); keys are the prefix and the position in the source."""
        keys = [f"{prefix}-{i:06d}" for i in range(len(labels))]
        return cls(labels=labels.astype(np.int64), keys=keys, image=images.__getitem__)

    def take(self, rows: NDArray[np.int64]) -> "Split":
        """The images at some rows (n,)."""
        return Split(
            labels=self.labels[rows],
            keys=[self.keys[i] for i in rows],
            image=_Chosen(self.image, rows),
            about=[self.about[i] for i in rows] if self.about else (),
        )


@dataclass(frozen=True)
class _Chosen:
    """The images at some rows of a split."""

    image: Callable[[int], NDArray[np.uint8]]
    rows: NDArray[np.int64]

    def __call__(self, i: int) -> NDArray[np.uint8]:
        return self.image(int(self.rows[i]))


def _nothing() -> None:
    """What most sources have to do when they are done with."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A whole data set before it is written."""

    name: str
    class_names: tuple[str, ...]
    image_size: int
    channels: int
    splits: dict[str, Split]
    made: str
    """One line for dataset.json: from what and how; no path, no time."""
    mirrors: bool
    """Whether a mirrored image is as real as the image: true of objects, false of digits."""
    notes: tuple[str, ...] = ()
    """What the user should know, printed and not stored."""
    allow_missing: int = 0
    """How many images may still turn out bad while writing, before that is an error."""
    done: Callable[[], None] = _nothing
    """Called once the data set is in place: copies made for reading may go."""
