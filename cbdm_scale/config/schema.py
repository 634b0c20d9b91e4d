"""A run, as one value. Each part is configured by the module that owns it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cbdm_scale.cluster.options import ClusterConfig
from cbdm_scale.data.exposure import Part, exposure_parts
from cbdm_scale.data.guidance_strength import stated_numbers
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.data.options import DataConfig
from cbdm_scale.diffusion.options import EDMConfig, NoiseConfig, ProcessName, ScheduleConfig
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.models.options import (
    BackboneName,
    ModelConfig,
    UNetConfig,
    backbone_config,
)
from cbdm_scale.sampling.options import SamplerConfig, check_trained
from cbdm_scale.storage.checks import check_fields, check_name
from cbdm_scale.storage.json import flatten, structure, with_values
from cbdm_scale.storage.path_options import File
from cbdm_scale.storage.run_dir import check_run_name
from cbdm_scale.tracking.options import TrackConfig
from cbdm_scale.training.options import TrainConfig, per_rank

LabelRows = Literal["auto", "index", "mean"]

RUNTIME_OPTIONS = (
    "name",
    "preset",
    "init_from",
    "data.root",
    "data.num_workers",
    "data.prefetch_factor",
    "data.cache",
    "data.cache_gb",
    "data.timeout_s",
    "data.max_bad",
    "sample.",
    "eval.",
    "cluster.",
    "track.",
    "train.total_images",
    "train.micro_batch",
    "train.channels_last",
    "train.compile",
    "train.graph",
    "train.deterministic",
    "train.keep_checkpoints",
    "train.patience",
    "train.max_bad_steps",
    "train.log_every",
    "train.save_every",
    "train.sample_every",
    "train.eval_every",
    "train.posthoc_every",
    "train.eval_at",
)
"""Options that may differ when a run goes on: they do not change what is learnt."""
SCHEDULED = "data.resample_power", "data.balanced_fraction"
"""Options that may change at shares of the run (data/exposure.py)."""


@dataclass(frozen=True, kw_only=True)
class Config:
    dataset: str = "digits_lt"
    """Data set, by the name that `cbdm prepare` gave it; - and _ alike."""

    preset: str = "cbdm"
    """What the other options start from: cbdm or ddpm as in the paper's tables, small for CPUs,
    or another of docs/presets.md."""

    backbone: BackboneName = "unet"
    """The network; it decides which --model options there are."""

    name: str = ""
    """Name of the run; "" is data set, loss and a hash of what is learnt (identity options)."""

    seed: int = 0
    """Seed of the sample plan and of every random number."""

    init_from: File = ""
    """Fine-tune (Table 2): start from a trained network's averaged weights. A run (its newest
    whole checkpoint), a checkpoint in it, models:/NAME@ALIAS, a .pt of the paper's code, or a
    folder of diffusers. "" is random weights."""

    init_labels: LabelRows = "auto"
    """With init_from: what label rows start from. auto: that of the class of the same name (on
    the same data set: number), or else the mean row. index: that of the same number. mean: the
    mean row."""

    init_sha256: str = ""
    """With init_from: of the weights there, filled in by the train command. It is part of a
    run's name, as the place is not."""

    process: ProcessName = "ddpm"
    """What noise is: steps of DDPM (its options in diffusion), or EDM's levels (in edm)."""

    data: DataConfig = field(default_factory=DataConfig)
    diffusion: ScheduleConfig = field(default_factory=ScheduleConfig)
    edm: EDMConfig = field(default_factory=EDMConfig)
    model: ModelConfig = field(default_factory=UNetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SamplerConfig = field(default_factory=SamplerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "dataset", canonical_name(self.dataset))
        if self.dataset:  # a trained network may not say it
            check_name("dataset", self.dataset)
        if self.name:
            check_run_name(self.name)
        if type(self.model) is not type(backbone_config(self.backbone)):
            raise ValueError(
                f"backbone ({self.backbone}) has no model of {type(self.model).__name__}. Try "
                "models.options.backbone_config(backbone)."
            )
        if self.loss.two_mask and not self.model.dropout:
            raise ValueError(
                f"loss.two_mask ({self.loss.two_mask}) compares two dropout masks, and "
                "model.dropout (0.0) makes none. Try --model.dropout 0.1."
            )
        if self.train.trainable == "omega" and not self.loss.tcfg:
            raise ValueError(
                "train.trainable (omega) is the layer of the guidance strength, which this "
                "network does not have. Give --loss.tcfg, or --train.trainable all."
            )
        self.sample.check_fits(self.process, self.diffusion.num_steps)
        stated = [n for strength in self.eval.guidance for n in stated_numbers(strength)]
        check_trained(
            *("eval.guidance_mode", self.eval.guidance_mode),
            *(max(stated, default=0.0), self.loss.max_guidance),
        )
        _ = self.exposure  # ValueError where changes fall on one image
        on_way = self.train.eval_every or self.train.eval_at
        if self.train.patience and not (on_way and self.eval.extractor != "none"):
            raise ValueError(
                f"train.patience ({self.train.patience}) counts evaluations on the way, and "
                "there are none. Give --train.eval-every and an --eval.extractor, or "
                "--train.patience 0."
            )
        for workers in range(self.cluster.fewest, self.cluster.ranks + 1):
            per_rank(self.train.batch_size, workers)

    @property
    def run_name(self) -> str:
        """``name``; where there is none, data set, title and a hash of the identity options.

        Only of those that are not at their defaults: an option that is new in a version
        leaves the names of runs alone that do not use it.
        """
        if self.name:
            return self.name
        usual = _usual(self.backbone).flat()
        changed = [(k, v) for k, v in identity_options(self.flat()).items() if v != usual[k]]
        plain = {k: float(v) if type(v) is int else v for k, v in changed}  # 1 is 1.0
        text = json.dumps(plain, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.dataset}-{self.title}-{digest}"

    @property
    def is_scheduled(self) -> bool:
        """Whether what is learnt at an image depends on how many will be shown in all."""
        return len(self.exposure) > 1 or self.train.lr_schedule == "linear"

    @property
    def exposure(self) -> tuple[Part, ...]:
        """How often classes are shown, from which image on."""
        data, total = self.data, self.train.total_images
        return exposure_parts(data.resample_power, data.balanced_fraction, total)

    @property
    def noise(self) -> NoiseConfig:
        """The process and its options."""
        return NoiseConfig(process=self.process, schedule=self.diffusion, edm=self.edm)

    @property
    def eval_seed(self) -> int:
        """Of the noise that evaluations make their images of."""
        return self.seed if self.eval.seed is None else self.eval.seed

    @property
    def title(self) -> str:
        """The objective and its process in a word: ddpm, cbdm, edm, edm_cbdm, edm_tcfg, ..."""
        title = self.loss.title
        return title if self.process == "ddpm" else f"edm_{title}".replace("_ddpm", "")

    def flat(self) -> dict[str, Any]:
        """Every option by its dotted name, as plain JSON values."""
        return flatten(json.loads(json.dumps(asdict(self))))


def is_runtime(option: str) -> bool:
    """Whether a dotted option is among ``RUNTIME_OPTIONS``, by itself or with its part."""
    return any(
        option == r or (r.endswith(".") and option.startswith(r)) for r in RUNTIME_OPTIONS
    )


def identity_options(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Of options by their dotted names those that make it this run and no other.

    train.total_images is one where data.resample_power or data.balanced_fraction is a schedule,
    whose changes are at shares of it, and where the learning rate falls to its end.
    """
    scheduled = any(isinstance(flat.get(option), str) for option in SCHEDULED)
    scheduled |= flat.get("train.lr_schedule") == "linear"
    return {
        option: value
        for option, value in flat.items()
        if not is_runtime(option) or (scheduled and option == "train.total_images")
    }


def _usual(backbone: BackboneName) -> Config:
    """Everything at its default, on a backbone."""
    return Config(backbone=backbone, model=backbone_config(backbone))


def from_dict(tree: Any) -> Config:
    """The inverse of ``dataclasses.asdict`` after a trip through JSON; ValueError if damaged.

    What a run's config.json holds besides (its images and classes) is left alone.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"a configuration is an object of JSON, got {type(tree).__name__}")
    usual = _usual(structure(str, tree.get("backbone", "unet"), "backbone"))
    return with_values(usual, {k: v for k, v in tree.items() if k not in ("image", "classes")})
