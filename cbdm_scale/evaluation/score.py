"""One evaluation of a network: a grid to look at, FID and label fidelity by class group.

All ranks take part: each reads its share of the real images and makes its share of the
generated ones; the sums are the same for every number of ranks. C, H, W = image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from cbdm_scale.data.index import Index
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion.process import Process
from cbdm_scale.evaluation.extractors import Read, find_extractor
from cbdm_scale.evaluation.features import Extractor, Recipe
from cbdm_scale.evaluation.grid import class_grid, png_bytes
from cbdm_scale.evaluation.groups import (
    GroupScores,
    fid_by_group,
    kept_recall,
    spread_rows,
)
from cbdm_scale.evaluation.history import BestBy
from cbdm_scale.evaluation.precision_recall import K_NEAREST
from cbdm_scale.evaluation.resize import Resize, check_rule
from cbdm_scale.labels import Group, class_cyclic
from cbdm_scale.sampling.generate import SamplerConfig, chunks, generate, to_uint8
from cbdm_scale.sampling.guidance import GuidanceMode, check_mode
from cbdm_scale.types import Net

GRID_ROWS = 30
GRID_COLUMNS = 10


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    extractor: str = "classifier"
    """Network whose features FID compares: classifier (stored beside the shards),
    classifier:PATH, inception (as in the literature), dinov2, or none."""

    weights: str = ""
    """Weights of inception or dinov2. Empty: CBDM_SCALE_INCEPTION or CBDM_SCALE_DINOV2, or a
    download."""

    allow_weights: bool = False
    """Take weights that nobody published. Their numbers compare with no others."""

    resize: Resize = "bilinear"
    """Rule that makes images as large as the network wants: bilinear (pytorch-fid, the paper),
    tf1 (torch-fidelity), bicubic (clean-fid)."""

    num_images: int = 10_000
    """Generated images an evaluation, labels class by class in turn (Section 4.1: 50,000)."""

    recall_images: int = 0
    """Images of either side whose improved precision and recall are measured as well; 0: none.
    The paper's 50,000 belong to python -m cbdm_scale.evaluate, not to every look on the way."""

    omegas: tuple[float, ...] = (1.0,)
    """Guidance strengths: the first at intervals, all of them at the end."""

    scan: bool = False
    """All strengths at intervals too: the best differs from loss to loss, and over time."""

    seed: int | None = None
    """Seed of the noise that images are made of; None is the run's. Runs of several seeds
    compare better when they are judged on the same noise."""

    guidance_mode: GuidanceMode = "cfg"
    """cfg: two predictions a step. tcfg: one, by a network trained with --loss.tcfg."""

    chunk_size: int = 100
    """Images generated at once. The set is made in these chunks whatever the workers."""

    beside: Literal["auto", "never", "always"] = "auto"
    """Evaluations at intervals in a process of their own, with the same numbers, while training
    goes on. auto: where the cluster has a worker's share of CPUs free (in a GPU run a GPU too),
    or else by the training workers, which wait. never: by the training workers. always: also
    where no CPU is free, sharing theirs. A checkpoint is saved before each, and one waits for
    the other."""

    best_by: BestBy = "fid"
    """Score that chooses the best checkpoint: FID of all classes or of the few ones."""

    def __post_init__(self) -> None:
        if self.num_images < 2:
            raise ValueError(f"eval.num_images must be at least 2, got {self.num_images}.")
        if self.recall_images and not K_NEAREST < self.recall_images <= self.num_images:
            raise ValueError(
                f"eval.recall_images must be 0 or from {K_NEAREST + 1} to eval.num_images "
                f"({self.num_images}), got {self.recall_images}."
            )
        if not self.omegas or min(self.omegas) < 0:
            raise ValueError(
                f"eval.omegas must be one or more strengths of at least 0, got {self.omegas}: "
                "0 is no guidance, the paper uses 0.8 to 1.6."
            )
        check_mode("eval.guidance_mode", self.guidance_mode)
        check_rule(self.resize)
        if self.chunk_size < 1:
            raise ValueError(f"eval.chunk_size must be at least 1, got {self.chunk_size}.")
        if self.beside not in ("auto", "never", "always"):
            raise ValueError(f"eval.beside must be auto, never or always, got {self.beside!r}.")
        if self.best_by not in get_args(BestBy):
            raise ValueError(f"eval.best_by must be fid or fid_few, got {self.best_by!r}.")

    @property
    def at_intervals(self) -> tuple[float, ...]:
        """The strengths of an evaluation on the way."""
        return self.omegas if self.scan else self.omegas[:1]

    def recipe(self, folder: str, read: Read) -> Recipe:
        """The extractor that these options name; ``folder`` is that of the data set."""
        return find_extractor(
            self.extractor,
            folder,
            read,
            weights=self.weights,
            allow_weights=self.allow_weights,
            resize=self.resize,
        )


@dataclass(frozen=True)
class Generator:
    """Makes the images of a set on this rank: those of its chunks."""

    config: SamplerConfig
    process: Process
    shape: tuple[int, int, int]
    num_classes: int
    seed: int
    device: torch.device
    chunk_size: int
    guidance_mode: GuidanceMode = "cfg"
    tell: Callable[[int], None] = lambda num_images: None
    """Told the number of images of every chunk that is made."""

    def share(
        self, net: Net, num_images: int, omega: float, rank: int, size: int
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(numbers (n,), labels (n,), images (n, C, H, W) uint8) of every chunk of a rank."""
        made = []
        labels = class_cyclic(num_images, self.num_classes)
        for part in chunks(num_images, self.chunk_size, rank, size):
            samples, y = part.to(self.device), labels[part].to(self.device)
            x = generate(
                net,
                samples,
                y,
                config=self.config,
                process=self.process,
                shape=self.shape,
                omega=omega,
                null_label=self.num_classes,
                seed=self.seed,
                chunk_size=self.chunk_size,
                guidance_mode=self.guidance_mode,
            )
            made.append((part, labels[part], to_uint8(x).cpu()))
            self.tell(len(part))
        return made


def real_scores(
    reader: ShardReader,
    index: Index,
    groups: tuple[Group, ...],
    extractor: Extractor,
    rank: int,
    size: int,
    keep: int = 0,
    batch_size: int = 250,
) -> GroupScores:
    """Scores of this rank's share of the real images that metrics compare against.

    keep: real images whose features are kept, spread over the split; at most its size.
    """
    scores = GroupScores(groups, extractor.dim, keep)
    for rows in chunks(index.num_samples, batch_size, rank, size):
        pixels = torch.stack([torch.from_numpy(reader.load(row)) for row in rows.tolist()])
        labels = torch.from_numpy(index.labels[rows.numpy()].copy())
        place = spread_rows(rows, index.num_samples, keep)
        scores.add(extractor(from_uint8(pixels)), labels, place)
    return scores


def fake_scores(
    net: Net,
    generator: Generator,
    num_images: int,
    omega: float,
    groups: tuple[Group, ...],
    extractor: Extractor,
    rank: int,
    size: int,
    keep: int = 0,
) -> GroupScores:
    """Scores of this rank's share of the generated images, quantised as a file would be.

    keep: the features of the first so many images are kept.
    """
    scores = GroupScores(groups, extractor.dim, keep)
    for numbers, labels, images in generator.share(net, num_images, omega, rank, size):
        scores.add(extractor(from_uint8(images)), labels, numbers)
    return scores


def from_uint8(images: Tensor) -> Tensor:
    """0..255 to [-1, 1]."""
    return images.float() / 127.5 - 1


def compare(real: GroupScores, fake: GroupScores) -> dict[str, float]:
    """FID and label fidelity, overall and by group; precision and recall of kept features."""
    return fid_by_group(real, fake) | fake.label_fidelity() | kept_recall(real, fake)


def grid_order(counts: Sequence[int]) -> list[int]:
    """Classes from the most frequent to the rarest, thinned to at most 30 rows."""
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    if len(order) <= GRID_ROWS:
        return order
    return [order[round(i * (len(order) - 1) / (GRID_ROWS - 1))] for i in range(GRID_ROWS)]


def grid_png(images: Tensor, labels: Tensor, counts: Sequence[int]) -> bytes:
    """The picture of a sample grid: rows by class frequency. images (n, C, H, W) uint8."""
    scale = max(1, 32 // images.shape[-1])
    grid = class_grid(images, labels, grid_order(counts), columns=GRID_COLUMNS, scale=scale)
    return png_bytes(grid)
