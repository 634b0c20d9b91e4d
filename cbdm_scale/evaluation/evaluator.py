"""The looks that a run takes at its network: a grid of samples, and scores by class group.

Connects the plain parts of sampling and evaluation to a run: configuration, ranks, storage.
Images are counted in shares, one for each training worker, and the shares summed in their
order: the scores have the same bits from all ranks together as from a process that makes every
share by itself (``evaluate_alone``).
"""

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cbdm_scale.config.schema import Config
from cbdm_scale.data.cache import open_cache
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import Manifest, dataset_folder, read_manifest
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.process import Process
from cbdm_scale.evaluation.history import Point
from cbdm_scale.evaluation.score import (
    Generator,
    compare,
    fake_scores,
    real_scores,
)
from cbdm_scale.metrics.extractors import recipe_of
from cbdm_scale.metrics.features import Extractor
from cbdm_scale.metrics.groups import GroupScores
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.sampling.grid import GRID_COLUMNS, grid_png
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.distributed import OneProcess, World
from cbdm_scale.training.state import load_average

BLOCK = 1 << 20
"""Numbers that all ranks tell each other at once."""
Scores = dict[str, dict[str, float]]
"""Guidance strength (as text) -> name -> value."""


class Evaluator:
    """All ranks call its methods together; rank 0 gets pictures, all ranks get scores."""

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        process: Process,
        world: World,
        run: Storage,
        num_shares: int | None = None,
    ):
        """num_shares: of all ranks; None is one each, more need a world of one process."""
        self.num_shares = num_shares or world.size
        assert world.size in (1, self.num_shares), "a share a rank, or all on one"
        self.config, self.manifest, self.world, self.run = config, manifest, world, run
        self.generator = Generator(
            config.sample,
            process,
            (manifest.channels, manifest.image_size, manifest.image_size),
            manifest.num_classes,
            config.seed if config.eval.seed is None else config.eval.seed,
            world.device,
            config.eval.chunk_size,
            config.eval.guidance_mode,
        )
        self.extractor: Extractor | None = None
        if config.eval.extractor != "none":
            folder = Storage(dataset_folder(config.data.root, config.dataset))
            recipe = recipe_of(config.eval, folder.url, folder.read_path)
            self.extractor = recipe.load(world.device)
        self._real: GroupScores | None = None

    def _autocast(self) -> torch.autocast:
        bf16 = self.config.train.precision == "bf16"
        device = self.world.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=bf16)

    def grid(self, net: nn.Module) -> bytes | None:
        """The PNG of ten images a class, rows by class frequency (rank 0; None elsewhere)."""
        world, counts = self.world, self.manifest.counts["train"]
        num_images = GRID_COLUMNS * self.manifest.num_classes
        with world.monitored_barrier(), self._autocast():
            made = self.generator.share(
                net, num_images, self.config.eval.omegas[0], world.rank, world.size
            )
        everybody = [chunk for rank in world.gather(made) for chunk in rank]
        if world.rank:
            return None
        labels = torch.cat([y for _, y, _ in everybody])
        return grid_png(torch.cat([x for _, _, x in everybody]), labels, counts)

    def real(self) -> GroupScores:
        """Scores of the eval split, computed once per data set and extractor."""
        assert self.extractor is not None
        if self._real is None:
            root, name = self.config.data.root, self.config.dataset
            index = open_index(root, name, "eval")
            keep = min(index.num_samples, self.config.eval.recall_images)
            stem = f"real-{self.manifest.fingerprint}-{self.extractor.fingerprint}"
            kept = f"evaluation/{stem}{f'-{keep}' if keep else ''}.bin"
            self._real = GroupScores(self.manifest.groups, self.extractor.dim, keep)
            known = self.run.read_bytes(kept) if self.run.exists(kept) else None
            if any(self.world.gather(known is None)):
                reader = ShardReader(root, name, index, cache=open_cache(self.config.data))
                groups, extractor = self.manifest.groups, self.extractor
                self._real = self.total(
                    lambda share: real_scores(
                        reader, index, groups, extractor, share, self.num_shares, keep
                    ),
                    keep,
                )
                if self.world.rank == 0:
                    self.run.write_bytes(kept, self._real.state().numpy().tobytes())
            else:
                assert known is not None
                flat = torch.frombuffer(bytearray(known), dtype=torch.float64)
                self._real.load(flat)
        return self._real

    def total(self, count: Callable[[int], GroupScores], keep: int) -> GroupScores:
        """The sum of all shares' scores, the first with the second, then with the third, ...

        keep: features that they keep.
        """
        world = self.world
        with world.monitored_barrier():
            mine = count(world.rank).state()
            if world.size < self.num_shares:
                for share in range(1, self.num_shares):
                    mine = mine + count(share).state()
        assert self.extractor is not None
        summed = GroupScores(self.manifest.groups, self.extractor.dim, keep)
        summed.load(sum_in_order(world, mine))
        return summed

    @property
    def key(self) -> dict[str, Any]:
        """What scores depend on besides the network: others do not compare."""
        assert self.extractor is not None
        mode, seed = self.config.eval.guidance_mode, self.config.eval.seed
        return {
            "num_images": self.config.eval.num_images,
            "sample": self.config.sample.to_dict(),
            "extractor": self.extractor.fingerprint,
            "dataset": self.manifest.fingerprint,
            # Earlier files say none of these.
            **({"recall_images": keep} if (keep := self.config.eval.recall_images) else {}),
            **({} if mode == "cfg" else {"guidance_mode": mode}),
            **({} if seed is None else {"seed": seed}),
        }

    def kept(self, images: int) -> Scores:
        """The scores that the run already has of its network after so many images."""
        file = evaluation_file(images)
        kept = self.run.read_json(file) if self.run.exists(file) else {}
        scores: Scores = kept.get("scores", {}) if kept.get("key") == self.key else {}
        return scores

    def history(self, omega: float) -> list[Point]:
        """All evaluations of the run at one strength that compare, in order of images."""
        names = self.run.child("evaluation").list() if self.run.exists("evaluation") else []
        stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        found = [(int(s), self.kept(int(s))) for s in stems if s.isdecimal()]
        key = str(float(omega))
        return [Point(images, scores[key]) for images, scores in found if key in scores]

    def evaluate(self, net: nn.Module, images: int, omegas: tuple[float, ...]) -> Scores:
        """FID and label fidelity of the network after so many images, for each strength.

        Kept in evaluation/<images>.json: what is there is not computed again. Empty where
        eval.extractor is none.
        """
        if self.extractor is None:
            return {}
        extractor, groups = self.extractor, self.manifest.groups
        size, keep = self.config.eval.num_images, self.config.eval.recall_images
        scores = self.world.gather(self.kept(images))[0]
        for omega in omegas:
            if str(float(omega)) in scores:
                continue

            def count(share: int, omega: float = omega) -> GroupScores:
                with self._autocast():
                    return fake_scores(
                        net,
                        self.generator,
                        size,
                        omega,
                        groups,
                        extractor,
                        share,
                        self.num_shares,
                        keep,
                    )

            fake = self.total(count, keep)
            scores[str(float(omega))] = compare(self.real(), fake)
        if self.world.rank == 0:
            content = {"images": images, "key": self.key, "scores": scores}
            self.run.write_json(evaluation_file(images), content)
        return {str(float(omega)): scores[str(float(omega))] for omega in omegas}

    def load(self, images: int) -> nn.Module:
        """The averaged network of a checkpoint; ValueError if it is damaged."""
        manifest, config = self.manifest, self.config
        net = network_spec(config, manifest).build().to(self.world.device)
        if config.train.channels_last:
            net = net.to(memory_format=torch.channels_last)
        load_average(self.run, images, net)
        return net.eval().requires_grad_(False)


def evaluation_file(images: int) -> str:
    return f"evaluation/{images:012d}.json"


def sum_in_order(world: World, values: Tensor) -> Tensor:
    """Sum of a vector over ranks, one rank after the other: no ring decides its last bits."""
    if world.size == 1:
        return values
    blocks = []
    for block in values.split(BLOCK):
        first, *others = world.gather(block.clone())  # a view would bring all of its vector
        for other in others:
            first = first + other
        blocks.append(first)
    return torch.cat(blocks)


def evaluate_alone(
    device: torch.device,
    images: int,
    tell: Callable[[float], None],
    *,
    config: Config,
    run: Storage,
    num_shares: int,
    say: Callable[[str], None] = print,
) -> Scores:
    """What ``evaluate`` gives of a checkpoint on ``num_shares`` ranks, by one process."""
    manifest = read_manifest(config.data.root, config.dataset)
    world = OneProcess(str(device))
    evaluator = Evaluator(
        config, manifest, build_process(config.noise, device), world, run, num_shares
    )
    made = 0

    def count(num_images: int) -> None:
        nonlocal made
        made += num_images
        tell(made / config.eval.num_images / len(config.eval.at_intervals))

    say(f"evaluating {images:,} images beside training on {socket.gethostname()}:{os.getpid()}")
    evaluator.generator = replace(evaluator.generator, tell=count)
    return evaluator.evaluate(evaluator.load(images), images, config.eval.at_intervals)
