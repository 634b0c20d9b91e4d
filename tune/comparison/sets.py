"""Sets of images of a network at a stop and a strength, with their features: made once.

    sets/<row>-seed<k>/<images>-<omega>-<key>.npz
    sets/<row>-seed<k>/<images>-<omega>-<key>-<extractor>.npz    features of a further extractor

key: twelve digits of what else decides the images, so that other options are other files.
images (N, C, H, W) uint8, labels (N,), features (N, D) float32, predicted (N,) the class that
the extractor sees, -1 where it knows none. Labels come class by class in turn. The two halves
of the images have noise of their own, which is the same for all methods of one seed.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.generation.network import sampling_net
from cbdm_scale.metrics.extract import CHUNK_SIZE
from cbdm_scale.metrics.features import Extractor
from cbdm_scale.sampling.options import usual_sampler
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import flatten
from cbdm_scale.training.distributed import World
from tune.comparison.networks import open_network
from tune.comparison.protocol import digest

HALVES = 2
Arrays = dict[str, Any]
"""Name -> array of an .npz file."""


@dataclass(frozen=True)
class Features:
    """What scores are computed from: (N, D) features, (N,) labels, (N,) classes as seen."""

    x: Tensor
    y: Tensor
    seen: Tensor

    def take(self, rows: Tensor) -> "Features":
        """Some of the images, by a mask or their places."""
        return Features(self.x[rows], self.y[rows], self.seen[rows])

    def half(self, number: int) -> "Features":
        """The first half of the images (0), or the second (1)."""
        size = len(self.y) // HALVES
        return self.take(torch.arange(number * size, (number + 1) * size))

    def replaced(self, rows: Tensor, other: "Features") -> "Features":
        """With some of the images (N,) bool from another set of the same labels."""
        x = torch.where(rows[:, None], other.x, self.x)
        return Features(x, self.y, torch.where(rows, other.seen, self.seen))


def set_name(images: int, omega: float, key: str) -> str:
    """A set's name in the folder of its network, without an ending."""
    return f"{images:012d}-{omega:g}-{key}"


def set_key(config: Config, num_images: int, extractor: str, guide: int = 0) -> str:
    """Changes with all that decides a set's images and features, besides the weights.

    guide: training images of the guide, 0 of none.

    Of the sampler's options only with those that are not at their defaults: an option that is
    new in a version makes no set anew.
    """
    usual = flatten(usual_sampler(config.process).to_dict())
    chosen = {k: v for k, v in flatten(config.sample.to_dict()).items() if v != usual.get(k)}
    mode = config.eval.guidance_mode
    by = [guide] if guide else []
    return digest(config.process, chosen, mode, config.seed, num_images, extractor, *by)


def features_name(name: str, extractor: str) -> str:
    """Where what a further extractor, by its fingerprint, sees in a set is kept."""
    return f"{name}-{extractor}"


class SetMaker:
    """Makes the sets of one network's weights after another's."""

    def __init__(
        self,
        config: Config,
        network: Config,
        manifest: Manifest,
        num_images: int,
        folder: Storage,
        device: torch.device,
        guide: int = 0,
        further: Sequence[Extractor] = (),
    ):
        """config: how images are made. network: that of the network's training. folder: of the
        sets. guide: training images of the same network that guides; 0 is none. further: what
        looks at the images besides the extractor of ``config``."""
        self.network, self.manifest, self.num_images = network, manifest, num_images
        self.folder, self.device, self.guide = folder, device, guide
        self.further = further
        options = replace(config.eval, seed=config.seed, num_images=num_images)
        process = build_process(config.noise, device)
        self.evaluator = Evaluator(
            replace(config, eval=options), manifest, process, World(device), folder
        )
        assert self.evaluator.extractor is not None, "a protocol names one"
        self.extractor = self.evaluator.extractor
        self.key = set_key(config, num_images, self.extractor.fingerprint, guide)

    def make(self, images: int, omegas: tuple[float, ...]) -> None:
        """Make the sets at these strengths that are not there yet, and what further extractors
        see in all of them."""
        names = {omega: set_name(images, omega, self.key) for omega in omegas}
        todo = [o for o in omegas if not self.folder.exists(f"{names[o]}.npz")]
        if todo:
            self._sample(images, {omega: names[omega] for omega in todo})
        for name, extractor in product(names.values(), self.further):
            file = f"{features_name(name, extractor.fingerprint)}.npz"
            if not self.folder.exists(file):
                with np.load(io.BytesIO(self.folder.read_bytes(f"{name}.npz"))) as made:
                    chunks = torch.from_numpy(made["images"]).split(CHUNK_SIZE)
                    labels = torch.from_numpy(made["labels"])
                self._write(file, _features_of(chunks, labels, extractor))

    def _sample(self, images: int, names: dict[float, str]) -> None:
        """Make the sets of these names, by strength."""
        net = self._net(images)
        weak = self._net(self.guide) if self.guide else None
        numbers = torch.arange(self.num_images)
        for omega, name in names.items():
            made = self.evaluator.generate(net, numbers, omega, 0, 1, weak)
            chunks, labels = [x for _, _, x in made], torch.cat([y for _, y, _ in made])
            found = _features_of(chunks, labels, self.extractor)
            self._write(f"{name}.npz", {"images": torch.cat(chunks).numpy(), **found})

    def _write(self, file: str, arrays: Arrays) -> None:
        data = io.BytesIO()
        np.savez(data, **arrays)
        self.folder.write_bytes(file, data.getvalue())

    def _net(self, images: int) -> Net:
        """The averaged network after so many images, to sample from."""
        net = open_network(self.network, self.manifest, images, self.device)
        return sampling_net(net, self.device, self.network.train.precision)


def _features_of(chunks: Sequence[Tensor], labels: Tensor, extractor: Extractor) -> Arrays:
    """What an extractor sees in images (n, C, H, W) uint8, chunk by chunk."""
    found = [extractor(x) for x in chunks]
    logits = [f.logits for f in found if f.logits is not None]
    seen = torch.cat(logits).argmax(1) if logits else torch.full_like(labels, -1)
    return {
        "labels": labels.numpy(),
        "features": torch.cat([f.pool for f in found]).cpu().numpy(),
        "predicted": seen.cpu().numpy(),
    }


def read_set(folder: Storage, name: str) -> Features:
    """The features of a set, or those of a further extractor."""
    with np.load(io.BytesIO(folder.read_bytes(f"{name}.npz"))) as found:
        return Features(
            torch.from_numpy(found["features"]),
            torch.from_numpy(found["labels"]),
            torch.from_numpy(found["predicted"]),
        )
