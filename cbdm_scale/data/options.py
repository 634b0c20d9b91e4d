"""Options of the data: where it is, how it is augmented, resampled, read and cached."""

from dataclasses import dataclass
from typing import Literal, get_args

AugmentName = Literal["none", "ada", "diffaug"]


@dataclass(frozen=True, kw_only=True)
class DataRoot:
    root: str = ""
    """Folder or URL where the data set is now; "" is where the run found it."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    root: str = "~/cbdm_scale/shards"
    """Folder or URL that holds the data sets made by `python -m data_prep`."""

    flip: bool = True
    """Flip images horizontally, each with probability 1/2."""

    augment: AugmentName = "none"
    """ada (geometry; the network is told of it), diffaug (colour, shift, cutout) or none."""

    augment_p: float = 0.12
    """Probability of each of ADA's transformations; `flip` keeps its own 1/2."""

    resample_power: float = 1.0
    """Classes are sampled with probability counts ** power: 1 none, 0.5 SQRT-RS, 0 RS."""

    balanced_fraction: float = 0.0
    """Share of every batch that is drawn uniformly over classes."""

    processes: int = 0
    """Processes that read and decode, per worker; 0 is a thread of the worker."""

    prefetch: int = 4
    """Batches read ahead, per process (or by the thread)."""

    cache: str = ""
    """Folder of every node that keeps shards of a remote root and decoded images; empty is
    CBDM_SCALE_CACHE, or a folder of this user among the temporary files."""

    cache_gb: float = 16
    """Gigabytes (10^9 bytes) that this folder may take on each node; 0 keeps nothing."""

    timeout_s: float = 120
    """Seconds without a batch after which processes are given up; a shard of a remote root
    has to arrive in this time."""

    max_bad: float = 0.01
    """Share of the planned images that may be replaced because they are damaged."""

    def __post_init__(self) -> None:
        if not 0 <= self.resample_power <= 1:
            raise ValueError(
                f"data.resample_power must lie in [0, 1], got {self.resample_power}. "
                "Try 1 (no resampling), 0.5 or 0 (uniform classes)."
            )
        if not 0 <= self.balanced_fraction <= 1:
            raise ValueError(
                f"data.balanced_fraction must lie in [0, 1], got {self.balanced_fraction}. "
                "Try 0."
            )
        if self.processes < 0:
            raise ValueError(f"data.processes must be 0 or more, got {self.processes}. Try 0.")
        if self.prefetch < 1:
            raise ValueError(f"data.prefetch must be at least 1, got {self.prefetch}. Try 4.")
        if "://" in self.cache:
            raise ValueError(
                f"data.cache ({self.cache}) must be a folder on each node's own disk. Leave it "
                "out, or try --data.cache /tmp/shards."
            )
        if not self.cache_gb >= 0:
            raise ValueError(f"data.cache_gb must be 0 or more, got {self.cache_gb}. Try 16.")
        if not self.timeout_s > 0:
            raise ValueError(f"data.timeout_s must be above 0, got {self.timeout_s}. Try 120.")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"data.max_bad must lie in [0, 1], got {self.max_bad}. Try 0.01.")
        if self.augment not in get_args(AugmentName):
            raise ValueError(
                f"data.augment ({self.augment}) is no augmentation. "
                f"Choose {' or '.join(get_args(AugmentName))}."
            )
        if not 0 <= self.augment_p <= 1:
            raise ValueError(
                f"data.augment_p must lie in [0, 1], got {self.augment_p}. Try 0.12."
            )

    @property
    def conditions_on_augmentation(self) -> bool:
        """Whether the network hears ADA's nine numbers, and so needs an embedding of them."""
        return self.augment == "ada"
