"""Options of training: images, batch, optimiser, averages, intervals."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cbdm_scale.storage.checks import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    check_fields,
    check_value,
)

POWER = "power:"
"""Before the relative width of an average that is found after training."""
Width = Annotated[float, Range(gt=0, le=0.28, hint="Try 0.1: a tenth of the training so far.")]
"""Wider profiles of such an average would rise towards the beginning of training."""


def check_weights(weights: str) -> None:
    """ValueError unless it is ema, raw or power:WIDTH."""
    if weights in ("ema", "raw"):
        return
    try:
        if not weights.startswith(POWER):
            raise ValueError("it is neither of them")
        check_value("its width", float(weights.removeprefix(POWER)), Width)
    except ValueError as error:
        raise ValueError(
            f"weights ({weights}) must be ema (the average), raw (what was trained) or "
            f"power:WIDTH (an average found after training, such as power:0.1): {error}"
        ) from error


def check_source(run: str, weights: str) -> None:
    """ValueError where no network is named, or weights that no run has."""
    if not run:
        raise ValueError(
            "run is missing. Give --run the folder that the train command printed after 'run', "
            "a checkpoint in it, models:/NAME@ALIAS, or a .pt file of the paper's code."
        )
    check_weights(weights)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    total_images: PositiveInt = 19_200_000
    """Images shown to the network, all ranks together (the authors' 300k steps of 64)."""

    batch_size: PositiveInt = 64
    """Images per optimiser step, all ranks together."""

    micro_batch: NonNegativeInt = 0
    """Images per rank that go through the network at once; 0 is all of the rank's share."""

    trainable: Literal["all", "embeddings", "omega"] = "all"
    """Weights that learn; the others stay as they are, as they do in the average. embeddings:
    of step, label and strength, and the layers by which each block is given them. omega: the
    layer of the guidance strength alone (--loss.tcfg)."""

    lr: PositiveFloat = 2e-4
    """Learning rate of Adam after the warm-up."""

    lr_schedule: Literal["constant", "linear"] = "constant"
    """After the warm-up: the same rate to the end, or one that falls in a line to 0 at
    train.total_images."""

    warmup_images: NonNegativeInt = 320_000
    """Images over which the learning rate rises linearly from 0 (the authors' 5,000 steps)."""

    max_grad_norm: PositiveFloat = 1.0
    """Largest norm of the gradient; larger ones are scaled down to it."""

    ema_halflife: PositiveFloat = 443_600
    """Half-life of the averaged weights in images (the authors' 0.9999 a step of 64)."""

    ema_ramp: NonNegativeFloat = 0.0
    """Cap of the half-life as a share of the images seen; 0 is none, as in the paper."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 autocast for the network (weights, EMA, losses and norms stay fp32), or fp32: twice
    as fast and more on most CPUs, which compute bf16 in software."""

    channels_last: bool = True
    """Memory layout of the network's tensors."""

    compile: bool = False
    """Compile the network with torch.compile; where that fails it runs as it is, and a line
    says why."""

    graph: Literal["auto", "on", "off"] = "auto"
    """Record the whole step as a CUDA graph, which costs the host next to nothing; auto is on
    where a run has one GPU. Several never have one: no time-out ends a recorded reduction that
    waits for a worker that died. The memory of a recorded step is its own: nothing else can use
    it."""

    deterministic: bool = False
    """On GPUs, only kernels that give the same bits each time, some of which are slower: then a
    resumed run ends bit for bit as the unbroken one, on the same kind of GPU. On CPUs it always
    does."""

    log_every: PositiveInt = 51_200
    """Images between two reports of losses and speed."""

    save_every: PositiveInt = 640_000
    """Images between two checkpoints."""

    sample_every: NonNegativeInt = 1_280_000
    """Images between two sample grids; there is one at the end too. 0 for none at all."""

    eval_every: NonNegativeInt = 3_200_000
    """Images between two evaluations by FID, each of a checkpoint that is saved then; 0 for one
    at the end only."""

    posthoc_every: NonNegativeInt = 0
    """Images between two kept pairs of averages, from which sample and evaluate find that of
    any width (--weights power:0.1); 0 for none. They cost two more copies of the network."""

    eval_at: tuple[PositiveInt, ...] = ()
    """Further numbers of images after which to evaluate, and to make a grid unless
    train.sample_every is 0: an early look, or the rungs of a search."""

    patience: NonNegativeInt = 0
    """Evaluations in a row without a lower score (eval.best_by) after which the run ends, with
    its best checkpoints kept; 0 for never. Only those on the way count. By fid_few one at which
    the few classes have lost variety counts as no lower."""

    keep_checkpoints: PositiveInt = 3
    """Newest checkpoints to keep, besides the best ones and those that wait for an
    evaluation."""

    max_bad_steps: int = 5
    """Steps in a row with a gradient that is not finite, after which the run stops."""

    def __post_init__(self) -> None:
        check_fields(self, "train.")


def per_rank(batch_size: int, world_size: int) -> int:
    """A rank's share of a batch; a ValueError says which batch would divide."""
    if batch_size % world_size:
        smaller = batch_size // world_size * world_size
        raise ValueError(
            f"train.batch_size ({batch_size}) must be divisible by the number of workers "
            f"({world_size}). Try --train.batch-size {smaller or world_size}."
        )
    return batch_size // world_size
