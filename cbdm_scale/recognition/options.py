"""What the classify command can be told."""

from dataclasses import dataclass, field
from typing import Annotated

from cbdm_scale.cluster.options import ClusterConfig
from cbdm_scale.storage.checks import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    check_fields,
    check_name,
)
from cbdm_scale.storage.path_options import Folder, PathOption
from cbdm_scale.storage.run_dir import check_run_name
from cbdm_scale.tracking.options import TrackConfig
from cbdm_scale.training.options import per_rank


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The defaults are those of Cao et al., "LDAM" (2019), for long-tailed CIFAR."""

    epochs: PositiveFloat = 200
    """Passes over real and generated images together; train.total_images goes before."""

    total_images: NonNegativeInt = 0
    """Images shown in all, over all workers; 0 is epochs. The same number for every set
    compares data and not lengths of training."""

    batch_size: PositiveInt = 128
    """Images per optimiser step, all ranks together."""

    lr: PositiveFloat = 0.1
    """Learning rate of SGD after the warm-up."""

    momentum: Annotated[float, Range(ge=0, lt=1)] = 0.9
    """Of SGD, without Nesterov's step."""

    weight_decay: NonNegativeFloat = 2e-4
    """Added to the gradient, as a share of every weight."""

    warmup: Annotated[float, Range(ge=0, lt=1)] = 0.025
    """Share of the training over which the learning rate rises linearly (5 epochs of 200)."""

    class_balance: Annotated[float, Range(ge=0, lt=1)] = 0.0
    """beta of the class-balanced loss (Cui et al., 2019): the loss of a class of n images
    counts (1 - beta) / (1 - beta^n), all classes together K. 0: all images count the same. The
    paper's 0.9999 on CIFAR is the usual baseline without generated images."""

    log_every: PositiveInt = 25_600
    """Images between two reports of the loss."""

    def __post_init__(self) -> None:
        check_fields(self, "train.")

    def num_images(self, num_samples: int) -> int:
        """Images to show, of a set of ``num_samples``: whole steps, at least one."""
        wanted = self.total_images or self.epochs * num_samples
        return max(round(wanted / self.batch_size), 1) * self.batch_size


@dataclass(frozen=True, kw_only=True)
class RealData:
    root: Folder = "~/cbdm_scale/shards"
    """Folder or URL that holds the data sets made by `cbdm prepare`."""

    flip: bool = True
    """Mirror training images, each with probability 1/2; the digits' default is not to."""

    num_workers: int = 0
    """Processes that read and decode, per worker; 0 is a thread of the worker."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    dataset: str = "digits_lt"
    """Whose real training images are learnt, and whose test images are recognised."""

    add: Annotated[tuple[str, ...], PathOption(lasts=False)] = ()
    """Generated images besides: a set of `cbdm sample`, an .npz, a folder with
    a folder a class, or DATASET:SPLIT for shards. Table 4: 50,000."""

    add_per_class: str = "all"
    """Generated images of each class: a number (the first ones), fill (as many as the largest
    class has more than this one), or all, as in Table 4."""

    seeds: tuple[int, ...] = (0,)
    """One network each: first weights, order, crops and mirrors follow from it."""

    name: str = ""
    """Folder of the run in cluster.storage; "" is data set and a hash of what decides."""

    data: RealData = field(default_factory=RealData)
    train: FitConfig = field(default_factory=FitConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def __post_init__(self) -> None:
        check_name("dataset", self.dataset)
        if self.name:
            check_run_name(self.name)
        parse_per_class(self.add_per_class)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(
                f"seeds {self.seeds} must be different numbers from 0 on. Try --seeds 0 1 2."
            )
        if self.cluster.fewest < self.cluster.ranks:
            raise ValueError(
                f"cluster.min_workers ({self.cluster.min_workers}): batch normalisation sees a "
                "worker's share of a batch, so that the number of workers is fixed. Try 0."
            )
        per_rank(self.train.batch_size, self.cluster.ranks)


def parse_per_class(text: str) -> int | None:
    """How many generated images of each class: a number, None for all, -1 to fill up."""
    if text in ("all", "fill"):
        return None if text == "all" else -1
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ValueError(
        f"add_per_class ({text}) is no number of images. Give --add-per-class 500, all (every "
        "image of the sets) or fill (as many as the largest class lacks)."
    )
