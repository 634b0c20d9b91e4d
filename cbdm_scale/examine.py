"""The looks that a run takes at its network: a grid of samples, and scores by class group.

Connects the plain parts of sampling and evaluation to a run: configuration, ranks, storage.
"""

from dataclasses import asdict

import torch
from torch import nn

from cbdm_scale.config import Config
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import Manifest, dataset_folder
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.evaluation.features import Extractor
from cbdm_scale.evaluation.groups import GroupScores
from cbdm_scale.evaluation.score import (
    GRID_COLUMNS,
    Generator,
    compare,
    fake_scores,
    grid_png,
    real_scores,
    reduce_scores,
)
from cbdm_scale.storage import Storage
from cbdm_scale.training.world import World

Scores = dict[str, dict[str, float]]
"""Guidance strength (as text) -> name -> value."""


class Examiner:
    """All ranks call its methods together; rank 0 gets pictures, all ranks get scores."""

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        schedule: LinearSchedule,
        world: World,
        run: Storage,
    ):
        self.config, self.manifest, self.world, self.run = config, manifest, world, run
        self.generator = Generator(
            config.sample,
            schedule,
            (manifest.channels, manifest.image_size, manifest.image_size),
            manifest.num_classes,
            config.seed,
            world.device,
            config.eval.chunk_size,
        )
        self.extractor: Extractor | None = None
        if config.eval.extractor != "none":
            folder = Storage(dataset_folder(config.data.root, config.dataset))
            recipe = config.eval.recipe(folder.url, folder.read_path)
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
        with world.uneven(), self._autocast():
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
            kept = (
                f"evaluation/real-{self.manifest.fingerprint}-{self.extractor.fingerprint}.bin"
            )
            self._real = GroupScores(self.manifest.groups, self.extractor.dim)
            known = self.run.read_bytes(kept) if self.run.exists(kept) else None
            if any(self.world.gather(known is None)):
                reader = ShardReader(root, name, index, cache=self.config.data.open_cache())
                with self.world.uneven():
                    mine = real_scores(
                        reader,
                        index,
                        self.manifest.groups,
                        self.extractor,
                        self.world.rank,
                        self.world.size,
                    )
                self._real = reduce_scores(mine, self.world.sum)
                if self.world.rank == 0:
                    self.run.write_bytes(kept, self._real.state().numpy().tobytes())
            else:
                assert known is not None
                flat = torch.frombuffer(bytearray(known), dtype=torch.float64)
                self._real.load(flat)
        return self._real

    def evaluate(self, net: nn.Module, images: int, omegas: tuple[float, ...]) -> Scores:
        """FID and label fidelity of the network after so many images, for each strength.

        Kept in evaluation/<images>.json: what is there is not computed again. Empty where
        eval.extractor is none.
        """
        if self.extractor is None:
            return {}
        file = f"evaluation/{images:012d}.json"
        world, sizes = self.world, self.config.eval.num_images
        key = {
            "num_images": sizes,
            "sample": asdict(self.config.sample),
            "extractor": self.extractor.fingerprint,
            "dataset": self.manifest.fingerprint,
        }
        kept = self.run.read_json(file) if self.run.exists(file) else {}
        scores: Scores = kept.get("scores", {}) if kept.get("key") == key else {}
        scores = world.gather(scores)[0]
        for omega in omegas:
            if str(float(omega)) in scores:
                continue
            with world.uneven(), self._autocast():
                mine = fake_scores(
                    net,
                    self.generator,
                    sizes,
                    omega,
                    self.manifest.groups,
                    self.extractor,
                    world.rank,
                    world.size,
                )
            fake = reduce_scores(mine, world.sum)
            scores[str(float(omega))] = compare(self.real(), fake)
        if world.rank == 0:
            self.run.write_json(file, {"images": images, "key": key, "scores": scores})
        return {str(float(omega)): scores[str(float(omega))] for omega in omegas}
