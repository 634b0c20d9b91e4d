"""One evaluation of a network: a grid to look at, FID and label fidelity by class group.

All ranks take part: each reads its share of the real images and makes its share of the
generated ones; the sums are the same for every number of ranks. C, H, W = image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.data.groups import Group
from cbdm_scale.data.index import Index
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.labels import class_cyclic
from cbdm_scale.diffusion.process import Process
from cbdm_scale.metrics.features import Extractor
from cbdm_scale.metrics.groups import (
    GroupScores,
    fid_by_group,
    kept_recall,
    spread_rows,
)
from cbdm_scale.sampling.generate import chunks, generate, to_uint8
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig


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
