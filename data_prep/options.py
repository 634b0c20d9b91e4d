"""The options of python -m data_prep; its --help says what they mean."""

from dataclasses import dataclass
from typing import Literal

from data_prep.writing.encode import Format

Profile = Literal["exp", "step"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where None or False stands, the option was not given."""

    out: str
    source: str | None = None
    name: str | None = None
    train_list: str | None = None
    eval_list: str | None = None
    eval_source: str | None = None
    label_from: str | None = None
    classes: int | None = None
    counts: str | None = None
    eval_per_class: int | None = None
    resolution: int | None = None
    channels: int | None = None
    imbalance: float | None = None
    long_tail: float | None = None
    profile: Profile | None = None
    bounding_box: bool = False
    clean: bool = False
    allow_missing: int | None = None
    allow_changed: bool = False
    seed: int = 0
    samples_per_shard: int = 1000
    format: Format = "png"
    quality: int | None = None
    workers: int | None = None
    force_overwrite: bool = False
    classifier: bool = True


READER_OPTIONS = {
    "source": "--source",
    "name": "--name",
    "train_list": "--list",
    "eval_list": "--eval-list",
    "eval_source": "--eval-source",
    "label_from": "--label-from",
    "classes": "--classes",
    "counts": "--counts",
    "eval_per_class": "--eval-per-class",
    "resolution": "--resolution",
    "channels": "--channels",
    "imbalance": "--imbalance",
    "long_tail": "--long-tail",
    "profile": "--profile",
    "bounding_box": "--bounding-box",
    "clean": "--clean",
    "allow_missing": "--allow-missing",
    "allow_changed": "--allow-changed",
}
"""Fields that mean something to some readers only, and what users call them."""
