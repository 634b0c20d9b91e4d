"""How the evaluations of a run are made: extractor, number of images, strengths, when."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cbdm_scale.data.guidance_strength import Strength, Strengths, parse_strengths
from cbdm_scale.sampling.options import GuidanceMode
from cbdm_scale.storage.checks import NonNegativeInt, PositiveInt, Range, check_fields
from cbdm_scale.storage.path_options import File, PathOption

Resize = Literal["bilinear", "tf1", "bicubic"]

K_NEAREST = 5
"""Neighbours that a ball reaches to by default."""

BestBy = Literal["fid", "fid_few"]


@dataclass(frozen=True, kw_only=True)
class ExtractorWeights:
    """The files of extractors that others have published, and how these see images."""

    extractor_weights: File = ""
    """Weights of inception or dinov2. Empty: CBDM_SCALE_INCEPTION or CBDM_SCALE_DINOV2, or a
    download."""

    allow_weights: bool = False
    """Take weights that nobody published. Their numbers compare with no others."""

    resize: Resize = "bilinear"
    """Rule that makes images as large as the network wants: bilinear (pytorch-fid, the paper),
    tf1 (torch-fidelity), bicubic (clean-fid)."""


@dataclass(frozen=True, kw_only=True)
class ExtractorOptions(ExtractorWeights):
    """Whose features are compared."""

    extractor: Annotated[str, PathOption(lasts=False, after="classifier:")] = "classifier"
    """Network whose features FID compares: classifier (stored beside the shards),
    classifier:PATH, inception (as in the literature), dinov2, or none."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig(ExtractorOptions):
    """The options --eval.* of a run; the evaluate command takes its defaults from them."""

    num_images: Annotated[int, Range(ge=2)] = 10_000
    """Generated images an evaluation, labels class by class in turn (Section 4.1: 50,000)."""

    recall_images: NonNegativeInt = 0
    """Images of either side, if there are as many, of which improved precision and recall are
    measured as well, over all classes and by group, and which are searched for copies; 0: none.
    The paper's 50,000 belong to `cbdm evaluate`, not to every look on the way."""

    guidance: Strengths = (1.0,)
    """Guidance strengths: the first at intervals, all of them at the end. Each is a number, or
    knows the class, as many=0.5,medium=0.5,few=1 by group or count=1:-0.3, max(0, 1 - 0.3
    log10(n)) of a class with n training images."""

    scan: bool = False
    """All strengths at intervals too: the best differs from loss to loss, and over time."""

    seed: int | None = None
    """Seed of the noise that images are made of; None is the run's. Runs of several seeds
    compare better when they are evaluated on the same noise."""

    guidance_mode: GuidanceMode = "cfg"
    """cfg: two predictions a step. tcfg: one, by a network trained with --loss.tcfg."""

    chunk_size: PositiveInt | None = None
    """Images generated at once, whatever the workers; None: 100 on CPUs, on GPUs what fits in
    8 GiB, up to 500."""

    background: Literal["auto", "never", "always"] = "auto"
    """Evaluations at intervals in a process of their own, with the same numbers, while training
    goes on. auto: where the cluster has a worker's share of CPUs free (in a GPU run a GPU too),
    or else by the training workers, which wait. never: by the training workers. always: also
    where no CPU is free, sharing theirs. A checkpoint is saved before each, and one waits for
    the other."""

    best_by: BestBy = "fid"
    """Score that chooses the best checkpoint: FID of all classes or of the few ones."""

    def __post_init__(self) -> None:
        check_fields(self, "eval.")
        object.__setattr__(self, "guidance", parse_strengths("eval.guidance", self.guidance))
        if 0 < self.recall_images <= K_NEAREST:
            raise ValueError(
                f"eval.recall_images must be 0, or {K_NEAREST + 1} or more, got "
                f"{self.recall_images}."
            )

    @property
    def num_stored(self) -> int:
        """Generated images whose features are kept for recall and copies."""
        return min(self.recall_images, self.num_images)

    @property
    def at_intervals(self) -> tuple[Strength, ...]:
        """The strengths of an evaluation on the way."""
        return self.guidance if self.scan else self.guidance[:1]
