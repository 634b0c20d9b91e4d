"""Real images and generated ones as one set, planned and augmented like any other.

Shapes: n = images asked for, N = images in all, K = classes, (C, H, W) an image.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.data.loader import Batch
from cbdm_scale.data.plan import Plan
from cbdm_scale.diffusion import rng
from cbdm_scale.metrics.sources import Images
from cbdm_scale.recognition.options import parse_per_class
from cbdm_scale.storage.wording import prog_of

Rows = NDArray[np.int64]
READ_AT_ONCE = 256


def select_added(labels: Rows, real_counts: Sequence[int], per_class: str) -> Rows:
    """Which generated images to add, by their number: the first of each class, in order.

    labels (N,) of the generated images; ``real_counts`` (K,) training images of each class;
    ``per_class`` as in ``parse_per_class``: "fill" tops every class up to the largest one.
    """
    wanted = parse_per_class(per_class)
    if wanted is None:
        return np.arange(len(labels))
    needs = [wanted if wanted > 0 else max(real_counts) - count for count in real_counts]
    parts = [np.flatnonzero(labels == c)[:need] for c, need in enumerate(needs)]
    for c, (part, need) in enumerate(zip(parts, needs, strict=True)):
        if len(part) < need:
            raise ValueError(
                f"add_per_class ({per_class}) needs {need} generated images of class {c}, the "
                f"sets hold {len(part)}. Make more with {prog_of('sample')} "
                f"--num-images {max(needs) * len(needs)}, or give a smaller number."
            )
    return np.sort(np.concatenate(parts))


def check_added(
    where: str, images: Images, shape: tuple[int, int, int], num_classes: int
) -> None:
    """ValueError unless the images of ``--add where`` have the size and labels of the data."""
    labels = images.labels
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        meaning = "no label (-1)" if wrong[0] < 0 else f"label {wrong[0]}"
        raise ValueError(
            f"add ({where}): {len(wrong)} of {len(labels)} images have {meaning}, the data set "
            f"has classes 0..{num_classes - 1}. Give a set made for it, with labels: "
            f"{prog_of('sample')} --run RUN --format npz."
        )
    found = images.read([0]).shape[1:]
    if found != shape:
        raise ValueError(
            f"add ({where}): its images are {found} (channels, height, width), those of the "
            f"data set are {shape}. Give a set made for this data set."
        )


class MixedImages:
    """Several sets in a row: the first one's images, then the next one's."""

    def __init__(self, parts: Sequence[Images]):
        self.parts = tuple(parts)
        self.ends = np.cumsum([part.count for part in parts])
        self.labels: Rows = np.concatenate([part.labels for part in parts])

    @property
    def count(self) -> int:
        """Images of all sets together."""
        return int(self.ends[-1])

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any set's, and with their order."""
        joint = " ".join(part.fingerprint for part in self.parts)
        return hashlib.sha256(joint.encode()).hexdigest()[:16]

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """(n, C, H, W); each set is asked once."""
        rows = np.asarray(numbers, np.int64)
        places = np.searchsorted(self.ends, rows, side="right")
        pixels: NDArray[np.uint8] | None = None
        for place in np.unique(places).tolist():
            here = places == place
            part = self.parts[place]
            found = part.read((rows[here] - (self.ends[place] - part.count)).tolist())
            if pixels is None:
                pixels = np.empty((len(rows), *found.shape[1:]), np.uint8)
            pixels[here] = found
        assert pixels is not None, "at least one image is asked for"
        return pixels


@dataclass(frozen=True)
class Augmented:
    """The images of a plan by their numbers, each cropped and mirrored by numbers of its own.

    As in long-tailed recognition on CIFAR: a border of black, an eighth of the side wide, is
    put around the image, a window of its size taken out anywhere, mirrored with probability
    1/2. Which image, window and mirror depends on the seed and the image's number alone.
    """

    images: MixedImages
    plan: Plan
    seed: int
    flip: bool

    def __getitem__(self, sample_ids: Tensor) -> Batch:
        """Images of these numbers (n,) since the run began."""
        rows = self.plan.rows(sample_ids.numpy())
        pixels = self.images.read(rows.tolist())
        size = pixels.shape[-1]
        border = size // 8
        windows = rng.uniform(self.seed, "recognition/crop", sample_ids, 2) * (2 * border + 1)
        mirrored = rng.uniform(self.seed, "recognition/flip", sample_ids)[:, 0] < 0.5
        wide = np.pad(pixels, ((0, 0), (0, 0), (border, border), (border, border)))
        for i, (top, left) in enumerate(windows.long().tolist()):
            pixels[i] = wide[i, :, top : top + size, left : left + size]
        if self.flip:
            chosen = mirrored.numpy()
            pixels[chosen] = pixels[chosen, ..., ::-1]
        x, y = torch.from_numpy(pixels), torch.from_numpy(self.images.labels[rows])
        return Batch(x, y, sample_ids, tuple(map(str, rows)), ())


def not_in_training(train: Images, test: Images) -> list[int]:
    """Numbers of the test images that are no training image, pixel for pixel."""
    known = set(_digests(train))
    return [i for i, digest in enumerate(_digests(test)) if digest not in known]


def _digests(images: Images) -> Iterator[bytes]:
    for start in range(0, images.count, READ_AT_ONCE):
        part = images.read(range(start, min(start + READ_AT_ONCE, images.count)))
        yield from (hashlib.sha256(image.tobytes()).digest() for image in part)
