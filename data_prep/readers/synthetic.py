"""synthetic: procedural images of any number of classes, for load tests or for want of data.

An image is a lobed shape on a shaded ground. Its class decides the colours, the lobes and the
stripes; the image decides place, size, angle, phase, light and noise, and whether all of it is
mirrored. Every number is a function of (seed, class, number). The arithmetic keeps to + - * /,
square roots and rounding, which IEEE 754 defines to the last bit, and the random words are
Philox's: the same bytes on every machine. R = resolution, K = number of classes.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.storage.checks import Range, check_value
from data_prep.options import Options
from data_prep.readers.imagenet_counts import imagenet_lt_counts
from data_prep.readers.images import RESOLUTION
from data_prep.source import Source, Split

Floats = NDArray[np.float32]

MAX_CLASSES = 100_000
MAX_IMAGES = 1_000_000_000
EVAL_PER_CLASS = 50
NOISE = 16
"""Grey levels between which the noise of a pixel is uniform; it costs 4 bits a value in PNG."""
TRAIN, EVAL = 0, 1
"""Purpose of an image: no image of one split is in the other."""
GOLDEN = 0.6180339887498949
"""Steps of the golden ratio round the colour circle keep every two classes apart."""


@dataclass(frozen=True)
class Look:
    """What all images of a class share."""

    shape: Floats
    """(3,) colour of the shape, 0 to 255."""
    ground: Floats
    """(3,) colour behind it."""
    lobes: int
    depth: float
    """How deep the lobes are cut, as a share of the radius."""
    stripes: float
    """Stripes across the shape."""
    across: bool
    """Whether the stripes run across the shape's axis, or are rings around its centre."""


def read_synthetic(name: str, options: Options) -> Source:
    """Images per class by --counts: "imagenet_lt", a number for all classes, or one each."""
    assert options.counts is not None
    per_class = parse_counts(options.counts, options.classes)
    resolution = options.resolution or RESOLUTION
    k, num_eval = len(per_class), options.eval_per_class
    if num_eval is None:
        num_eval = min(EVAL_PER_CLASS, max(per_class))
    most = Annotated[int, Range(ge=1, le=MAX_IMAGES // k)]
    check_value("--eval-per-class", num_eval, most, default=EVAL_PER_CLASS)
    return Source(
        name=name,
        class_names=tuple(f"class_{c:04d}" for c in range(k)),
        image_size=resolution,
        channels=3,
        splits={
            "train": _split(per_class, resolution, options.seed, TRAIN),
            "eval": _split((num_eval,) * k, resolution, options.seed, EVAL),
        },
        made=f"procedural images, seed {options.seed}",
        mirrors=True,
    )


def parse_counts(counts: str, classes: int | None) -> tuple[int, ...]:
    """The option --counts, with --classes where it is needed: images per class, (K,)."""
    if counts.replace("-", "_") == "imagenet_lt":
        per_class = tuple(imagenet_lt_counts().values())
    else:
        try:
            per_class = tuple(int(word) for word in counts.split(","))
        except ValueError:
            raise ValueError(
                f"--counts ({counts}) is neither imagenet_lt, nor a number, nor numbers with "
                "commas between them. Try --counts 100,50,10."
            ) from None
        if len(per_class) == 1:
            if classes is None:
                raise ValueError(f"--counts ({counts}) needs --classes: how many classes?")
            check_value("--classes", classes, Annotated[int, Range(ge=2, le=MAX_CLASSES)])
            per_class *= classes
    if classes is not None and classes != len(per_class):
        raise ValueError(
            f"--classes ({classes}) is not the {len(per_class):,} of --counts. Leave it out."
        )
    if min(per_class) < 1 or sum(per_class) > MAX_IMAGES:
        raise ValueError(
            f"--counts ({counts}) must give every class an image, and all of them at most "
            f"{MAX_IMAGES:,}."
        )
    return per_class


def _split(per_class: tuple[int, ...], resolution: int, seed: int, purpose: int) -> Split:
    counts = np.array(per_class, np.int64)
    labels = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    pairs = zip(labels.tolist(), numbers.tolist(), strict=True)
    return Split(
        labels=labels,
        keys=[f"c{c:05d}-{i:06d}" for c, i in pairs],
        image=Painter(labels, numbers, resolution, seed, purpose),
    )


@dataclass(frozen=True)
class Painter:
    """The images of a split, by position."""

    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]
    """Of each image within its class."""
    resolution: int
    seed: int
    purpose: int

    def __call__(self, i: int) -> NDArray[np.uint8]:
        return paint(
            self.seed,
            int(self.labels[i]),
            int(self.numbers[i]),
            self.resolution,
            purpose=self.purpose,
        )


def paint(
    seed: int, label: int, number: int, resolution: int, *, purpose: int = TRAIN
) -> NDArray[np.uint8]:
    """One image, (R, R, 3) uint8."""
    look = _look(seed, label)
    words = np.random.Philox(key=[seed, 2 * label + purpose], counter=[0, number, 0, 0])
    u = _uniform(words, 8)
    x, y = _grid(resolution)
    x, y = x - (u[0] - 0.5) * 0.5, y - (u[1] - 0.5) * 0.5
    cosine, sine = _direction(u[2] - 0.5, u[3] - 0.5)
    along, off = x * cosine + y * sine, y * cosine - x * sine
    square = along * along + off * off
    radius = 0.5 + 0.3 * u[4]
    wave = _triangle(_turn(along, off) * look.lobes)
    edge = radius * radius * (1 - look.depth * wave) - square
    inside = np.clip(edge * (resolution / 4) + 0.5, 0, 1)  # antialiased
    stripes = _triangle((along if look.across else square) * look.stripes + u[5])
    inside *= 0.5 + 0.5 * stripes
    light = 0.8 + 0.2 * u[6] + 0.1 * y
    pixels = inside[..., None] * (look.shape - look.ground) + look.ground
    pixels *= light[..., None]
    pixels += _noise(words, resolution)
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image[:, ::-1]) if u[7] < 0.5 else image


@lru_cache(maxsize=4096)
def _look(seed: int, label: int) -> Look:
    words = np.random.Philox(key=[seed, 2 * label + TRAIN], counter=[0, 0, 1, 0])
    u = _uniform(words, 6)
    hue = (label * GOLDEN + float(u[0]) * 0.02) % 1
    return Look(
        shape=_colour(hue, 0.55 + 0.45 * float(u[1])),
        ground=_colour(hue + 0.3 + 0.4 * float(u[2]), 0.25 + 0.3 * float(u[3])),
        lobes=2 + label % 5,
        depth=0.35 + 0.35 * float(u[4]),
        stripes=1.0 + 3.0 * float(u[5]),
        across=label // 5 % 2 == 0,
    )


def _uniform(words: np.random.Philox, count: int) -> Floats:
    """Numbers of [0, 1) with 24 bits, which float32 holds exactly, (count,)."""
    return ((words.random_raw(count) >> np.uint64(40)) / 2**24).astype(np.float32)


@lru_cache(maxsize=4)
def _grid(resolution: int) -> tuple[Floats, Floats]:
    """x and y of the pixels' centres, -1 to 1, (R, R) each."""
    line = ((2 * np.arange(resolution) + 1) / resolution - 1).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def _direction(x: np.float32, y: np.float32) -> tuple[np.float32, np.float32]:
    """A unit vector: cosine and sine of an angle without either function."""
    length = np.sqrt(x * x + y * y)
    return (x / length, y / length) if length > 0 else (np.float32(1), np.float32(0))


def _turn(x: Floats, y: Floats) -> Floats:
    """Once round the origin from 0 to 1: as an angle, but for a diamond instead of a circle."""
    quarter = y / (np.abs(x) + np.abs(y) + np.float32(1e-6))  # -1 to 1 and back
    turn: Floats = np.where(x > 0, quarter + np.float32(1), np.float32(3) - quarter)
    return turn / np.float32(4)


def _triangle(x: Floats) -> Floats:
    """0 at whole numbers, 1 half way between, straight lines from one to the other."""
    distance: Floats = np.abs(x - np.rint(x))
    return distance + distance


def _colour(hue: float, brightness: float) -> Floats:
    """A saturated colour of the circle of hues, (3,), 0 to 255."""
    corner = np.array([0, 1 / 3, 2 / 3]) + hue
    distance = np.abs(corner - np.rint(corner))  # 0 to 1/2
    channels = np.clip(3 * distance - 0.25, 0, 1)
    return (255 * brightness * channels).astype(np.float32)


def _noise(words: np.random.Philox, resolution: int) -> NDArray[np.int8]:
    """(R, R, 3), from -NOISE / 2 to NOISE / 2 - 1, uniform."""
    values = resolution * resolution * 3
    raw = words.random_raw(-(-values // 8)).astype("<u8").view(np.uint8)[:values]
    noise: NDArray[np.int8] = (raw & (NOISE - 1)).astype(np.int8) - np.int8(NOISE // 2)
    return noise.reshape(resolution, resolution, 3)
