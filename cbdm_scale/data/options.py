"""Options of the data: where it is, how it is augmented, resampled, read and cached."""

from dataclasses import dataclass
from typing import Literal

from cbdm_scale.data.exposure import Exposure, canonical_exposure, parse_exposure
from cbdm_scale.storage.checks import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    UnitFloat,
    check_fields,
)
from cbdm_scale.storage.path_options import Folder

AugmentName = Literal["none", "ada", "diffaug"]


@dataclass(frozen=True, kw_only=True)
class DataRoot:
    root: Folder = ""
    """Folder or URL where the data set is now; "" is where the run found it."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    root: Folder = "~/cbdm_scale/shards"
    """Folder or URL that holds the data sets made by `cbdm prepare`."""

    flip: bool = True
    """Flip images horizontally, each with probability 1/2."""

    augment: AugmentName = "none"
    """ada (geometry; the network is told of it), diffaug (colour, shift, cutout) or none."""

    augment_p: UnitFloat = 0.12
    """Probability of each of ADA's transformations; `flip` keeps its own 1/2."""

    jitter_rare: NonNegativeFloat = 0.0
    """Small shifts and zooms of the rare classes' images, as if each class had so many more:
    an image of a class of n is moved with probability jitter_rare / (jitter_rare + n)."""

    resample_power: Exposure = 1.0
    """Classes are sampled with probability counts ** power: 1 none, 0.5 SQRT-RS, 0 RS. It may
    change at shares of the run: 1,0.5@0.6 is 1, and from 0.6 of train.total_images on 0.5."""

    balanced_fraction: Exposure = 0.0
    """Share of every batch that is drawn uniformly over classes; it may change as well."""

    num_workers: NonNegativeInt = 0
    """Processes that read and decode, per worker; 0 is a thread of the worker."""

    prefetch_factor: PositiveInt = 4
    """Batches read ahead, per process (or by the thread)."""

    cache: Folder = ""
    """Folder of every node that keeps shards of a remote root and decoded images; empty is
    CBDM_SCALE_CACHE, or a folder of this user among the temporary files."""

    cache_gb: NonNegativeFloat = 16
    """Gigabytes (10^9 bytes) that this folder may take on each node; 0 keeps nothing."""

    timeout_s: PositiveFloat = 120
    """Seconds without a batch after which processes are given up; a shard of a remote root
    has to arrive in this time."""

    max_bad: UnitFloat = 0.01
    """Share of the planned images that may be replaced because they are damaged."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        for name, usual in (("resample_power", 1.0), ("balanced_fraction", 0.0)):
            changes = parse_exposure(f"data.{name}", getattr(self, name), usual)
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, canonical_exposure(changes))
        if "://" in self.cache:
            raise ValueError(
                f"data.cache ({self.cache}) must be a folder on each node's own disk. Leave it "
                "out, or try --data.cache /tmp/shards."
            )

    @property
    def conditions_on_augmentation(self) -> bool:
        """Whether the network hears ADA's nine numbers, and so needs an embedding of them."""
        return self.augment == "ada"
