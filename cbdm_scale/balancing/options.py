"""What the balance command can be told. Nothing here imports torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cbdm_scale.balancing.quotas import check_target
from cbdm_scale.metrics.options import ExtractorOptions
from cbdm_scale.pretrained.options import GenerationOptions
from cbdm_scale.storage.checks import PositiveInt, Range, check_name
from cbdm_scale.storage.path_options import Folder, PathOption

FilterName = Literal["label", "copies", "outliers", "duplicates"]
FILTERS: tuple[FilterName, ...] = ("label", "copies", "outliers", "duplicates")
"""In the order in which they are asked: the first that rejects an image is its reason."""


@dataclass(frozen=True, kw_only=True)
class BalanceOptions(GenerationOptions, ExtractorOptions):
    """The run's own configuration decides the defaults, once --run is given."""

    to: str = "fill"
    """Training images that each class is to have, real and generated: fill (as many as the
    largest class), a number, or a multiple of its own, such as x2."""

    classes: tuple[str, ...] = ()
    """Only these classes get generated images: by name, by number, or a group, such as few;
    none is all."""

    out: Folder = ""
    """Folder or URL that the data set goes to, as OUT/<name>."""

    dataset: str = ""
    """Name of the data set that is made; "" is the real one's with _balanced behind it."""

    also: tuple[Literal["folders", "npz"], ...] = ()
    """Further forms of the training images, real and generated. folders: OUT/<name>-folders, a
    folder a class and labels.csv. npz: OUT/<name>.npz, the layout of ADM."""

    filters: tuple[Literal["label", "copies", "outliers", "duplicates", "none"], ...] = FILTERS
    """label: a classifier's confidence in the class asked for. copies: the distance to the
    nearest training image. outliers: the distance to the class's training images. duplicates:
    the distance to the generated images before. none takes every image."""

    keep: Annotated[float, Range(ge=0.5, lt=1, hint="Try 0.95.")] = 0.95
    """Share of held-out real images that each filter lets pass: its threshold follows."""

    classifiers: Annotated[tuple[str, ...], PathOption(lasts=False)] = ()
    """Files of classifiers (classify and data_prep write them) whose mean confidence judges
    labels; none is the one beside the shards."""

    extractor: Annotated[str, PathOption(lasts=False, after="classifier:")] = ""
    """Network whose features measure distances: "" is the first classifier; classifier:PATH,
    inception or dinov2."""

    most: Annotated[float, Range(ge=1)] = 10.0
    """Images generated for a class at most, times those that it lacks."""

    force: bool = False
    """Go on with a run that has not learnt its labels."""

    force_overwrite: bool = False
    """Replace OUT/<name> if it differs."""

    dry_run: bool = False
    """Say how many images, calls, hours and bytes it takes, and do nothing."""

    features: Folder = ""
    """Folder of this machine where features are kept; "" is features/ in CBDM_SCALE_CACHE."""

    samples_per_shard: PositiveInt = 1000
    """Images in a tar."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_target(self.to)
        if self.dataset:
            check_name("dataset", self.dataset)
        if len(self.guidance) > 1:
            raise ValueError(
                f"guidance names {len(self.guidance)} strengths, and a data set is made with "
                "one. Give one number, or one a group: --guidance many=0.5,medium=0.5,few=1."
            )
        if "none" in self.filters and len(self.filters) > 1:
            raise ValueError("filters none takes every image. Leave out none, or the others.")
        if self.extractor == "none":
            raise ValueError("extractor none measures no distance. Try --extractor classifier.")

    @property
    def asked(self) -> tuple[FilterName, ...]:
        """The filters in the order in which they are asked."""
        return tuple(name for name in FILTERS if name in self.filters)
