"""Options of the commands that take a trained network: which one, and what is made with it.

Nothing here imports torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.data.guidance_strength import Strength, Strengths, parse_strengths
from cbdm_scale.data.options import DataRoot
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig
from cbdm_scale.storage.checks import PositiveInt, check_fields
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.path_options import Folder, PathOption, absolute_paths
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.options import TrackUri
from cbdm_scale.training.options import check_source

if TYPE_CHECKING:
    from cbdm_scale.data.manifest import Manifest
    from cbdm_scale.generation.plan import SetPlan
    from cbdm_scale.pretrained.network import PretrainedNetwork


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which network."""

    run: Folder = ""
    """A run's folder or URL (its newest whole checkpoint), a checkpoint in it, an MLflow model
    (models:/NAME@ALIAS, runs:/ID/PATH), a checkpoint of the paper's own code (.pt), or a folder
    of diffusers."""

    weights: str = "ema"
    """ema: the weights' average. raw: as they were trained. power:WIDTH: the average of this
    relative width, such as power:0.1, of a run with --train.posthoc-every."""

    resolution: PositiveInt | None = None
    """Height of the images, for a .pt file that does not say it."""

    data: DataRoot = field(default_factory=DataRoot)
    track: TrackUri = field(default_factory=TrackUri)

    def __post_init__(self) -> None:
        check_fields(self)

    def load(self) -> "PretrainedNetwork":
        """Find and read it; ValueError says what is not there, and the way out."""
        check_source(self.run, self.weights)  # before torch is imported
        from cbdm_scale.pretrained.loading import load_pretrained

        return load_pretrained(
            absolute_paths(self).run,  # its images and numbers go into it
            weights=self.weights,
            resolution=self.resolution,
            tracking_uri=self.track.uri,
        )


GUIDE = "guide", "guide_weights"
"""Options of autoguidance."""


@dataclass(frozen=True, kw_only=True)
class GenerationOptions(NetworkOptions):
    """Which network, and how images are made with it: by default as its run says."""

    guidance: Strengths = (1.0,)
    """Strengths, a set for each: numbers, or by class. omega of (1 + omega) e - omega e_null: 0
    is none. In the other convention, s e + (1 - s) e_null, it is s = 1 + omega. By class:
    many=0.5,medium=0.5,few=1 by group, or count=1:-0.3, max(0, 1 - 0.3 log10(n)) with n
    training images."""

    guidance_mode: GuidanceMode = "cfg"
    """cfg: two predictions a step. tcfg: one, by a network trained with --loss.tcfg."""

    guide: Annotated[str, PathOption(lasts=False, word="[0-9]+")] = ""
    """A worse network for autoguidance (Karras et al., 2024). e + omega (e - e_guide), both
    with the label, instead of guidance by the label: of the same data set and process. Images
    seen by an earlier checkpoint of the run, such as 24000, or what --run takes. "" is none."""

    guide_weights: str = ""
    """Which weights of the guide, as --weights; "" is ema. Alone, such as power:0.02: the
    guide is a shorter average of the same checkpoint."""

    seed: int = 0
    """Every image's random numbers follow from the seed and its number in the set."""

    chunk_size: PositiveInt | None = None
    """Images made at once; None: 100 on CPUs, on GPUs what fits in 8 GiB, up to 500. Another
    size changes an image's last bits, no more."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast, several times as fast on a GPU, another rounding."""

    sample: SamplerConfig = field(default_factory=SamplerConfig)
    cluster: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "guidance", parse_strengths("guidance", self.guidance))
        if (self.guide or self.guide_weights) and self.guidance_mode == "tcfg":
            raise ValueError(
                f"guide ({self.guide or self.guide_weights}) and guidance_mode (tcfg) are two "
                "ways of guidance. Leave one of them out."
            )

    @property
    def one_call_line(self) -> str:
        """A line for people where the network guides itself, or "": with its line break."""
        one = self.guidance_mode == "tcfg" and any(self.guidance)
        return "guided   by one call a step (guidance_mode tcfg)\n" if one else ""

    def load_guide(self, pretrained: "PretrainedNetwork") -> "PretrainedNetwork | None":
        """The guide, None where there is none; ValueError if it does not fit the network."""
        if not (self.guide or self.guide_weights):
            return None
        from cbdm_scale.pretrained.guide import load_guide

        return load_guide(
            *(pretrained, self.guide, self.guide_weights or "ema"), tracking_uri=self.track.uri
        )

    def plan(
        self,
        pretrained: "PretrainedNetwork",
        real: "Manifest | None",
        omega: Strength,
        guide: "PretrainedNetwork | None" = None,
        *,
        labels: str = "cyclic",
        classes: Sequence[str] = (),
    ) -> "SetPlan":
        """What decides a set at one strength; ValueError if options do not fit the network.

        real: the training set, None where it is not to be had. labels, classes: as the sample
        command takes them.
        """
        from cbdm_scale.generation.plan import GuideNetwork, plan_set

        weak = None
        if guide:
            weak = GuideNetwork(
                checkpoint=guide.checkpoint,
                weights_sha256=guide.weights_sha256,
                network=guide.spec,
            )
        return plan_set(
            pretrained.spec,
            pretrained.config.noise,
            checkpoint=pretrained.checkpoint,
            weights_sha256=pretrained.weights_sha256,
            counts=real.counts["train"] if real else None,
            groups=real.groups if real else (),
            omega=omega,
            seed=self.seed,
            chunk_size=self.chunk_size,
            on_gpu=self.cluster.on_gpu,
            precision=self.precision,
            sample=self.sample,
            labels=labels,
            classes=classes,
            class_names=pretrained.names_with(real),
            guidance_mode=self.guidance_mode,
            guide=weak,
        )


def run_defaults(config: Config, guided: bool) -> dict[str, Any]:
    """How a run makes its own images, as ``GenerationOptions``; guided: by another network."""
    return {
        "guidance": config.eval.guidance[:1],
        "guidance_mode": "cfg" if guided else config.eval.guidance_mode,
        "seed": config.seed,
        "chunk_size": config.eval.chunk_size,
        "sample": config.sample,
    }


def config_of(run: str) -> Config | None:
    """The configuration in a run's folder; None where there is none, for --help."""
    try:
        return from_dict(Storage(run).read_json(RunDir.CONFIG)) if run else None
    except (ValueError, OSError):
        return None
