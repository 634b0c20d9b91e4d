"""A network of a comparison: from its first weights to the scores of all its sets."""

import os
from dataclasses import dataclass

import torch

from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.devices import open_device
from tune.comparison.choice import Chooser
from tune.comparison.judging import Judging
from tune.comparison.networks import train_network
from tune.comparison.sets import SetMaker


@dataclass(frozen=True, kw_only=True)
class NetworkJob:
    """What is done with one network; goes to other processes."""

    row: str
    config: Config
    stops: dict[int, int]
    """Compute -> training images."""

    strengths: tuple[float, ...]
    judging: Judging
    on_gpu: bool

    def chooser(self, criterion: dict[str, float]) -> Chooser:
        """Chooses among its sets, when all are there."""
        return self.judging.chooser(self.config, self.stops, self.strengths, criterion)


def do_network(job: NetworkJob, number: int) -> None:
    """Train a network, make its sets and score them, in the process of a number."""
    config = job.config
    if job.on_gpu and number:
        os.environ["CUDA_VISIBLE_DEVICES"] = nth_gpu(number)
    torch.set_num_threads(1)
    device = open_device(job.on_gpu)
    manifest = read_manifest(config.data.root, config.dataset)

    def log(text: str) -> None:
        if not text.startswith("workers ("):
            print(f"{config.run_name} | {text.strip()}", flush=True)

    train_network(config, manifest, list(job.stops.values()), device, log)
    folder = job.judging.sets_of(config)
    maker = SetMaker(config, manifest, job.judging.num_images, folder, device)
    for stop, images in job.stops.items():
        maker.make(images, job.strengths)
        scores = [job.judging.scores(config, images, omega) for omega in job.strengths]
        found = ", ".join(
            f"{omega:g}: {(both[0]['fid'] + both[1]['fid']) / 2:.2f}"
            for omega, both in zip(job.strengths, scores, strict=True)
        )
        log(f"compute {stop:,} ({images:,} images): FID by strength {found}")


def nth_gpu(number: int) -> str:
    """What makes the GPU of this number the only one of a process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(i) for i in range(number + 1)]
    return names[number % len(names)]
