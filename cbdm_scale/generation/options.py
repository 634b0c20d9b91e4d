"""Options of the sample command."""

from dataclasses import dataclass, field
from typing import Literal

from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.data.options import DataRoot
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig, Strengths
from cbdm_scale.storage.checks import PositiveInt, check_fields
from cbdm_scale.tracking.options import TrackUri

Format = Literal["png", "npz", "shards"]


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The run's own configuration decides the defaults, once --run is given."""

    run: str = ""
    """A run's folder or URL (its newest whole checkpoint), a checkpoint in it, an MLflow model
    (models:/NAME@ALIAS, runs:/ID/PATH), or a checkpoint of the paper's own code (.pt)."""

    num_images: PositiveInt = 10_000
    """Images of the set. Section 4.1: 50,000. More of the same set later keeps these."""

    guidance: Strengths = (1.0,)
    """omega of (1 + omega) e - omega e_null, a set for each: 0 is none. In the other
    convention, s e + (1 - s) e_null, it is s = 1 + omega. The default is the run's first."""

    guidance_mode: GuidanceMode = "cfg"
    """cfg: two predictions a step. tcfg: one, by a network trained with --loss.tcfg."""

    labels: str = "cyclic"
    """cyclic: the classes in turn, equally many of each. train, sqrt, bal or a number: drawn,
    with probabilities proportional to the training counts to the power 1, 1/2, 0 or that."""

    classes: tuple[int, ...] = ()
    """Only these classes, by number, such as 3 7; none is all."""

    seed: int = 0
    """Every image's random numbers follow from the seed and its number in the set."""

    chunk_size: PositiveInt = 100
    """Images made at once. Another size changes an image's last bits, no more."""

    format: Format = "png"
    """png: a folder a class. npz: arr_0 (N, H, W, C) uint8 and arr_1, the layout of ADM.
    shards: a data set to train on."""

    weights: str = "ema"
    """ema: the weights' average. raw: as they were trained. power:WIDTH: the average of this
    relative width, such as power:0.1, of a run with --train.posthoc-every."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast, faster where the hardware has it, another rounding."""

    out: str = ""
    """Folder or URL of sets; "" is samples/ in the run, ~/cbdm_scale/samples without a run."""

    dataset: str = ""
    """Name of the data set that --format shards makes; "" is the run's own."""

    resolution: PositiveInt | None = None
    """Height of the images, for a .pt file that does not say it."""

    data: DataRoot = field(default_factory=DataRoot)
    track: TrackUri = field(default_factory=TrackUri)
    sample: SamplerConfig = field(default_factory=SamplerConfig)
    cluster: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        check_fields(self)
