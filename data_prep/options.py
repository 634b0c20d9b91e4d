"""The options of cbdm prepare, verify and describe."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cbdm_scale.storage.checks import NonNegativeInt, PositiveInt, Range, check_fields
from cbdm_scale.storage.path_options import File, Folder
from data_prep.writing.encode import Format, Quality

Profile = Literal["exp", "step"]
Imbalance = Annotated[float, Range(gt=0, le=1, hint="Try 0.01.")]
"""The smallest class over the largest."""
Workers = Annotated[int, Range(ge=0, hint="Leave it out, or try 0: this process alone.")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where None or False stands, the option was not given."""

    out: Folder = ""
    """The shards go to OUT/<name>; a folder or a URL."""

    source: str | None = None
    """The unpacked folder as published, or your own images."""

    name: str | None = None
    """folder, webdataset, synthetic: what to call it."""

    train_list: str | None = None
    """imagenet-lt: the file ImageNet_LT_train.txt."""

    eval_list: str | None = None
    """imagenet-lt: a list of the eval images, else the folder val."""

    eval_source: str | None = None
    """folder, webdataset: images that metrics compare with, best as many of each class."""

    label_from: str | None = None
    """webdataset: cls, which is the default, or json:FIELD."""

    classes: int | None = None
    """webdataset, synthetic: how many classes."""

    counts: str | None = None
    """synthetic: imagenet_lt, images a class, or a,b,c."""

    eval_per_class: PositiveInt | None = None
    """synthetic: up to 50 unless given."""

    resolution: Annotated[int, Range(ge=1, le=4096)] | None = None
    """Pixels of a side, for files: 64 unless given, cub200 128."""

    channels: Literal[1, 3] | None = None
    """3 for RGB, which is the default, or 1 for grey."""

    imbalance: Imbalance | None = None
    """Smallest class over largest, for the -lt sets: 0.01 unless given."""

    long_tail: Imbalance | None = None
    """Cut a tail into one's own images: smallest class over largest."""

    profile: Profile | None = None
    """Of the long tail: exp unless given."""

    bounding_box: bool = False
    """cub200: only the square around the bird."""

    clean: bool = False
    """celeba5: images with exactly one of the classes."""

    allow_missing: NonNegativeInt | None = None
    """Go on without up to so many images that are missing or bad."""

    allow_changed: bool = False
    """Accept files with another md5."""

    seed: Annotated[int, Range(ge=0, le=2**32 - 1)] = 0
    """Which images stay, and their order."""

    samples_per_shard: Annotated[int, Range(ge=1, le=1_000_000)] = 1000
    """Images in a tar."""

    format: Format = "png"
    """png, webp (lossless) or jpeg."""

    quality: Quality | None = None
    """Of --format jpeg, 1 to 100: 95 unless given."""

    workers: Workers | None = None
    """Ray tasks at a time; 0 is this process alone. Unless given: 0 if that takes up to a
    minute, else one per CPU."""

    force_overwrite: bool = False
    """Replace OUT/<name> if it differs."""

    classifier: bool = True
    """Fit the small feature classifier that FID without Inception needs."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    where: File = ""
    """ROOT for all data sets of a root, ROOT/NAME for one."""

    workers: Workers | None = None
    """As for making a data set."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True, kw_only=True)
class DescribeOptions:
    where: File = ""
    """ROOT for all data sets of a root, ROOT/NAME for one."""

    out: Folder = ""
    """The picture; "" is ROOT/NAME.png, beside the data set."""


READER_OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *("source", "name", "train_list", "eval_list", "eval_source", "label_from", "classes"),
        *("counts", "eval_per_class", "resolution", "channels", "imbalance", "long_tail"),
        *("profile", "bounding_box", "clean", "allow_missing", "allow_changed"),
    )
}
"""Fields that mean something to some readers only, and how they are typed."""
