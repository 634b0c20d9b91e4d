"""What the evaluate command can be told."""

from dataclasses import dataclass, field
from typing import Literal

from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.data.options import DataRoot
from cbdm_scale.metrics.options import Resize
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig, Strengths
from cbdm_scale.storage.checks import PositiveInt, check_fields
from cbdm_scale.tracking.options import TrackUri
from cbdm_scale.training.options import Width


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The run's own configuration decides the defaults, once --run is given."""

    run: str = ""
    """A run's folder or URL (its newest whole checkpoint), a checkpoint in it, an MLflow model
    (models:/NAME@ALIAS, runs:/ID/PATH), or a checkpoint of the paper's own code (.pt)."""

    num_images: int = 10_000
    """Generated images for each guidance strength. Section 4.1: 50,000; its ablations: 10,000.
    With --samples 0 is all of them."""

    guidance: Strengths = (1.0,)
    """Guidance strengths omega, such as 0 0.4 0.8: a set of images for each. With --samples the
    one that the set was made with, where the set does not say it."""

    guidance_mode: GuidanceMode = "cfg"
    """cfg: two predictions a step. tcfg: one, by a network trained with --loss.tcfg."""

    samples: str = ""
    """Evaluate these images, and make none: a set of the sample command, an .npz file, a folder
    of images with one folder a class, or DATASET:SPLIT, the folder of shards with a split."""

    against: str = ""
    """Another run's folder: the report shows its newest evaluation beside this one."""

    memorisation: bool = True
    """Look for copies of training images, which needs features of the training images."""

    extractor: str = "classifier"
    """Network whose features are compared: classifier (stored beside the shards),
    classifier:PATH, inception (as in the literature), or dinov2."""

    extractor_weights: str = ""
    """Weights of inception or dinov2. Empty: CBDM_SCALE_INCEPTION or CBDM_SCALE_DINOV2, or a
    download."""

    allow_weights: bool = False
    """Take weights that nobody published. Their numbers compare with no others."""

    resize: Resize = "bilinear"
    """Rule that makes images as large as the network wants: bilinear (pytorch-fid, the paper),
    tf1 (torch-fidelity), bicubic (clean-fid)."""

    weights: str = "ema"
    """ema: the weights' average. raw: as they were trained. power:WIDTH: the average of this
    relative width, such as power:0.1, of a run with --train.posthoc-every."""

    ema_sweep: tuple[Width, ...] = ()
    """Relative widths of the average, such as 0.03 0.05 0.1 0.2: an evaluation of each, and
    which one has the smallest FID. For a run with --train.posthoc-every."""

    seed: int = 0
    """Seed of the generated images, and of every random choice of the metrics."""

    chunk_size: PositiveInt = 100
    """Images made at once. Another size changes an image's last bits, no more."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast in sampling, faster where the hardware has it, another rounding."""

    out: str = ""
    """Folder or URL of evaluations; "" is evaluation/ in the run, ~/cbdm_scale/evaluation
    without a run."""

    features: str = ""
    """Folder of this machine where features are kept; "" is features/ in CBDM_SCALE_CACHE."""

    dataset: str = ""
    """Name of the data set, for a .pt file, which does not say it."""

    resolution: PositiveInt | None = None
    """Height of the images, for a .pt file that does not say it."""

    data: DataRoot = field(default_factory=DataRoot)
    track: TrackUri = field(default_factory=TrackUri)
    sample: SamplerConfig = field(default_factory=SamplerConfig)
    cluster: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.num_images < 2 and not (self.samples and self.num_images == 0):
            raise ValueError(
                f"num_images must be at least 2, got {self.num_images}. Try 10000."
            )
        if self.extractor == "none":
            raise ValueError("extractor none gives no numbers. Try --extractor classifier.")
        if self.samples and len(self.omegas) > 1:
            raise ValueError(
                f"guidance names {len(self.omegas)} strengths, and samples ({self.samples}) is "
                "one set. Give the one that it was made with."
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
    def omegas(self) -> tuple[float, ...]:
        """Guidance strengths in rising order, each once."""
        return tuple(sorted(set(self.guidance)))
