"""What real images score: how low a distance gets, and how high recall, without any network.

Real images stand in the place of the generated ones, against the other real images. With the
numbers of images that there are, no network can be told from perfect below this floor. With
their labels shuffled they score what is had by telling no class from another: chance.

Shapes: N = real images, R = some of them, K = classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cbdm_scale.evaluation.results import SetResult
from cbdm_scale.evaluation.set_metrics import compute_metrics
from cbdm_scale.metrics.extract import FeatureSet
from cbdm_scale.metrics.features import label_hits
from cbdm_scale.metrics.memorisation import GroupMemorisation, memorisation
from cbdm_scale.metrics.per_class import Whole, class_table
from cbdm_scale.metrics.reference import LabelledFeatures, Reference, some_rows

HELD_OUT = 10_000
"""Real images, at most, that memorisation is compared with."""
REAL = "real images"
"""The set of the floor: where its images are."""
SHUFFLED = "labels shuffled"
"""That of chance."""


def make_reference(
    real: FeatureSet,
    train: FeatureSet | None,
    counts: Sequence[int],
    *,
    weigh: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Reference:
    """The real side of an evaluation on a device; counts (K,) are those of the training set.

    train: features of the training images, None where memorisation is not looked for.
    """
    labelled = LabelledFeatures(train.pool.to(device), train.labels) if train else None
    rows = held_out(train, real, seed) if train else None
    pool = real.pool.to(device)
    return Reference(
        pool, real.labels, counts, weigh=weigh, train=labelled, held_out=rows, seed=seed
    )


def stand_ins(labels: Tensor, num_fake: int, seed: int = 0) -> Tensor:
    """Which real images (N,) stand for as many generated ones, class by class in turn.

    At most half of each class; labels (N,).
    """
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=rng)
    sizes = torch.bincount(labels)
    each = -(-num_fake // int((sizes > 0).sum()))
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for c, size in enumerate(sizes.tolist()):
        mine = order[labels[order] == c]
        chosen[mine[: min(size // 2, each)]] = True
    return chosen


def real_floors(
    real: FeatureSet,
    num_fake: int,
    counts: Sequence[int],
    *,
    weigh: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    step: Callable[[], None] = lambda: None,
) -> tuple[SetResult, SetResult | None]:
    """Every number, without interval, of real images in the place of ``num_fake`` others.

    And again with their labels shuffled; None where there are no numbers by class. step: as in
    ``compute_metrics``, for the former.
    """
    chosen = stand_ins(real.labels.cpu(), num_fake, seed)
    rest, made = real.at(~chosen), replace(real, imagenet=None).at(chosen)
    reference = Reference(rest.pool.to(device), rest.labels, counts, weigh=weigh, seed=seed)
    floor = compute_metrics(
        reference,
        made,
        counts,
        omega=0.0,
        guidance_mode="cfg",
        images=REAL,
        seed=seed,
        intervals=False,
        step=step,
    )
    return floor, _shuffled(reference, made, floor, counts) if floor.table.classes else None


def _shuffled(
    reference: Reference, made: FeatureSet, floor: SetResult, counts: Sequence[int]
) -> SetResult:
    """The floor with other labels: what is of all images together stays as it is."""
    rng = torch.Generator().manual_seed(reference.seed)
    y = made.labels[torch.randperm(len(made.labels), generator=rng)]
    hits = None if made.logits is None else label_hits(made.logits, y, len(counts))
    table = class_table(
        reference.real,
        LabelledFeatures(made.pool.to(reference.x.device), y, hits),
        counts,
        seed=reference.seed,
        reference=reference,
        whole=Whole(floor.fid, floor.kid, floor.recall, floor.sliced_wasserstein),
        intervals=False,
    )
    return replace(floor, images=SHUFFLED, table=table, fidelity=table.pooled[0].fidelity)


def held_out(train: FeatureSet, real: FeatureSet, seed: int = 0) -> Tensor:
    """Rows of real images that are no training images, by their pixels: (R,) int64."""
    rows = (~torch.isin(real.hashes, train.hashes)).nonzero().flatten()
    chosen = some_rows(len(rows), HELD_OUT, seed)
    return rows if chosen is None else rows[chosen].sort().values


def held_out_copies(
    train: FeatureSet,
    real: FeatureSet,
    counts: Sequence[int],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[GroupMemorisation, ...]:
    """The memorisation check of real images that were not trained on: what chance gives.

    Empty where all real images were trained on.
    """
    rows = held_out(train, real, seed)
    if not len(rows) or len(train.pool) < 2:
        return ()
    sides = train.pool.to(device), train.labels, real.pool[rows].to(device), real.labels[rows]
    return memorisation(*sides, counts).groups
