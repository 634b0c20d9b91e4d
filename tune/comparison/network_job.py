"""A network of a comparison: from its first weights to the scores of all its sets.

Several rows of the table may have the same network, guided in other ways.
"""

import os
from dataclasses import dataclass

import torch

from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.devices import open_device
from tune.comparison.choice import Chooser
from tune.comparison.feature_space import FeatureSpace
from tune.comparison.networks import train_network
from tune.comparison.sets import SetMaker


@dataclass(frozen=True, kw_only=True)
class SetsJob:
    """The sets of a row for one seed."""

    row: str
    config: Config
    """Names the row, and how its images are made."""

    stops: dict[int, int]
    """Compute -> training images."""

    guide: int
    """Training images of the guide; 0 is none."""

    strengths: tuple[float, ...]
    spaces: tuple[FeatureSpace, ...]
    """The first one chooses."""

    def chooser(self, criterion: dict[str, float]) -> Chooser:
        """Chooses among its sets, when all are there."""
        about = self.config, self.stops, self.strengths, self.guide
        return Chooser([space.sets(*about) for space in self.spaces], criterion)


@dataclass(frozen=True, kw_only=True)
class NetworkJob:
    """What is done with one network; goes to other processes."""

    config: Config
    """Of its training."""

    sets: tuple[SetsJob, ...]
    """Of every row that has it."""

    on_gpu: bool

    @property
    def images(self) -> list[int]:
        """Training images after which its weights are kept."""
        stops = [images for one in self.sets for images in one.stops.values()]
        return sorted({*stops, *(one.guide for one in self.sets if one.guide)})


def do_network(job: NetworkJob, number: int) -> None:
    """Train a network, make all its sets and score them in every space, in the process of a
    number."""
    config = job.config
    if job.on_gpu and number:
        os.environ["CUDA_VISIBLE_DEVICES"] = nth_gpu(number)
    torch.set_num_threads(1)
    device = open_device(job.on_gpu)
    manifest = read_manifest(config.data.root, config.dataset)

    def log(text: str) -> None:
        if not text.startswith("workers ("):
            print(f"{config.run_name} | {text.strip()}", flush=True)

    train_network(config, manifest, job.images, device, log)
    for one in job.sets:
        first, folder = one.spaces[0], FeatureSpace.sets_of(one.config)
        about = one.config, config, manifest, first.num_images, folder, device
        further = [space.load_extractor(device) for space in one.spaces[1:]]
        maker = SetMaker(*about, guide=one.guide, further=further)
        for stop, images in one.stops.items():
            maker.make(images, one.strengths)
            scores, *_ = [
                [space.scores(one.config, images, omega, one.guide) for omega in one.strengths]
                for space in one.spaces
            ]
            found = ", ".join(
                f"{omega:g}: {(both[0]['fid'] + both[1]['fid']) / 2:.2f}"
                for omega, both in zip(one.strengths, scores, strict=True)
            )
            log(f"{one.row}, compute {stop:,} ({images:,} images): FID by strength {found}")


def nth_gpu(number: int) -> str:
    """What makes the GPU of this number the only one of a process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(i) for i in range(number + 1)]
    return names[number % len(names)]
