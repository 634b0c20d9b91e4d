"""The options of python -m data_prep; its --help says what they mean."""

from dataclasses import dataclass

from data_prep.encode import Format


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where None or False stands, the option was not given."""

    out: str
    source: str | None = None
    train_list: str | None = None
    eval_list: str | None = None
    resolution: int | None = None
    imbalance: float | None = None
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
    "train_list": "--list",
    "eval_list": "--eval-list",
    "resolution": "--resolution",
    "imbalance": "--imbalance",
    "bounding_box": "--bounding-box",
    "clean": "--clean",
    "allow_missing": "--allow-missing",
    "allow_changed": "--allow-changed",
}
"""Fields that mean something to some readers only, and what users call them."""
