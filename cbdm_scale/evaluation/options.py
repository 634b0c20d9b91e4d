"""What the evaluate command can be told."""

from dataclasses import dataclass
from typing import Annotated

from cbdm_scale.data.guidance_strength import Strength, in_order
from cbdm_scale.metrics.options import ExtractorWeights
from cbdm_scale.pretrained.options import GenerationOptions
from cbdm_scale.storage.checks import Length
from cbdm_scale.storage.path_options import File, Folder, PathOption
from cbdm_scale.training.options import Width


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(GenerationOptions, ExtractorWeights):
    """The run's own configuration decides the defaults, once --run is given."""

    num_images: int = 10_000
    """Generated images for each guidance strength. Section 4.1: 50,000; its ablations: 10,000.
    With --samples 0 is all of them."""

    samples: File = ""
    """Evaluate these images, and make none: a set of the sample command, an .npz file, a folder
    of images with one folder a class, or DATASET:SPLIT, the folder of shards with a split."""

    extractor: Annotated[
        tuple[str, ...], Length(), PathOption(lasts=False, after="classifier:")
    ] = ("classifier",)
    """Networks whose features are compared, a feature space of each, of the same images:
    classifier (stored beside the shards), classifier:PATH, inception (as in the literature),
    dinov2. The first is the main one."""

    against: File = ""
    """Another run's folder: the report shows its newest evaluation beside this one."""

    memorisation: bool = True
    """Look for copies of training images, which needs features of the training images."""

    ema_sweep: tuple[Width, ...] = ()
    """Relative widths of the average, such as 0.03 0.05 0.1 0.2: an evaluation of each, and
    which one has the smallest FID. For a run with --train.posthoc-every."""

    out: Folder = ""
    """Folder or URL of evaluations; "" is evaluation/ in the run, ~/cbdm_scale/evaluation
    without a run."""

    features: Folder = ""
    """Folder of this machine where features are kept; "" is features/ in CBDM_SCALE_CACHE."""

    dataset: str = ""
    """Name of the data set, for a .pt file, which does not say it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_images < 2 and not (self.samples and self.num_images == 0):
            raise ValueError(
                f"num_images must be at least 2, got {self.num_images}. Try 10000."
            )
        if self.extractor_weights and {"inception", "dinov2"} <= {*self.extractor}:
            raise ValueError(
                f"extractor_weights ({self.extractor_weights}) is one file, and inception "
                "and dinov2 need one each. Name the files in CBDM_SCALE_INCEPTION and "
                "CBDM_SCALE_DINOV2, with --extractor-weights ''."
            )
        if self.samples and len(self.omegas) > 1:
            raise ValueError(
                f"guidance names {len(self.omegas)} strengths, and samples ({self.samples}) is "
                "one set. Give the one that it was made with."
            )
        if self.samples and (self.guide or self.guide_weights):
            raise ValueError(
                f"samples ({self.samples}) are images that are there, and guide "
                f"({self.guide or self.guide_weights}) makes others. Leave one of the two out."
            )
        if self.ema_sweep and (self.samples or self.weights != "ema"):
            other = "samples" if self.samples else "weights"
            raise ValueError(
                "ema_sweep makes its own images from its own averages, and cannot go with "
                f"{other}. Leave one of the two out."
            )

    @property
    def widths(self) -> tuple[float, ...]:
        """Relative widths of the sweep in rising order, each once; () for no sweep."""
        return tuple(sorted(set(self.ema_sweep)))

    @property
    def omegas(self) -> tuple[Strength, ...]:
        """Guidance strengths in rising order, then those by class, each once."""
        return tuple(sorted(set(self.guidance), key=in_order))
