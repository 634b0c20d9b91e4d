"""What generated images are compared with during training: sums over real images.

Images are counted in shares, and the shares summed in their order (evaluator.py says why).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cbdm_scale.config.schema import Config
from cbdm_scale.data.cache import open_cache
from cbdm_scale.data.groups import Group
from cbdm_scale.data.index import Index, open_index
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion.labels import class_cyclic
from cbdm_scale.evaluation.cautions import counts_to_weigh
from cbdm_scale.evaluation.pace import Pace
from cbdm_scale.metrics.features import Extractor
from cbdm_scale.metrics.groups import (
    GroupScores,
    spread_rows,
    stored_manifold,
    stored_numbers,
)
from cbdm_scale.metrics.memorisation import GroupMemorisation, memorisation
from cbdm_scale.metrics.precision_recall import ManifoldScores
from cbdm_scale.sampling.sampler import chunks
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.distributed import World, sum_in_order

Check = Callable[[], None]
"""Raises StopAsked where the work is to be left."""

_REAL_CHUNK = 250
"""Real images that are read and looked at together."""
TRAIN_NUMBERS = 1 << 25
"""Training images times dimensions of a feature, up to which copies are looked for."""
SAME_IMAGE = 1e-3
"""Distance to a training image, in units of the usual one, below which it is that image."""


class References:
    """Scores of the real images; all ranks call its methods together."""

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        world: World,
        run: Storage,
        extractor: Extractor,
        pace: Pace,
        num_shares: int,
        stopped: Callable[[], bool],
    ):
        """stopped: whether this rank is asked to stop; then work raises StopAsked."""
        self.stopped = stopped
        self.config, self.manifest, self.world, self.run = config, manifest, world, run
        self.extractor, self.pace, self.num_shares = extractor, pace, num_shares
        self.weigh = counts_to_weigh(manifest.counts["eval"])
        """Real images of each class where every class is to count alike; else None."""
        self._found: dict[str, GroupScores] = {}
        self._chance: tuple[GroupMemorisation, ...] | None = None

    def empty(self, num_stored: int, split: str = "") -> GroupScores:
        """Scores of no images yet, with room for the features of so many.

        split: that they are of; those of eval are weighed where they must be.
        """
        groups, device = self.manifest.groups, self.world.device
        weigh = self.weigh if split == "eval" else None
        return GroupScores(groups, self.extractor.dim, num_stored, device, weigh)

    def total(
        self, count: Callable[[int, Check], GroupScores], num_stored: int, split: str = ""
    ) -> GroupScores:
        """The sum of all shares' scores, the first with the second, then with the third, ...

        count: (share, check) -> scores, and calls ``check`` often. num_stored: features in
        each; split: as ``empty``.
        """
        world = self.world
        with world.monitored_barrier(self.stopped) as check:
            mine = count(world.rank, check).state()
            if world.size < self.num_shares:
                for share in range(1, self.num_shares):
                    mine = mine + count(share, check).state()
        summed = self.empty(num_stored, split)
        summed.load(sum_in_order(world, mine))
        return summed

    def real(self) -> GroupScores:
        """Scores of the eval split, with features stored of up to eval.recall_images."""
        num_real = self.manifest.num_images("eval")
        return self._split("eval", min(num_real, self.config.eval.recall_images))

    @property
    def looks_for_copies(self) -> bool:
        """Whether features are stored, and those of all training images fit into memory."""
        num_train = self.manifest.num_images("train")
        fits = 2 <= num_train <= TRAIN_NUMBERS // self.extractor.dim
        return fits and self.config.eval.recall_images > 0

    def load(self) -> None:
        """Have everything at hand that one rank alone will ask for."""
        self.real()
        if self.looks_for_copies:
            self._split("train", self.manifest.num_images("train"))

    def copies(self, fake: GroupScores) -> tuple[GroupMemorisation, ...]:
        """Near-copies of training images among the stored class-cyclic images; or empty."""
        return self._memorisation(fake.stored, self._cyclic(fake))

    def manifold(self, fake: GroupScores) -> dict[Group | None, ManifoldScores] | None:
        """Precision and recall of the stored class-cyclic images, by group; None of none."""
        if not len(fake.stored):
            return None
        real = self.real()
        labels = self._labels("eval", len(real.stored)), self._cyclic(fake)
        return stored_manifold(real, fake, labels, self.config.eval_seed)

    def _cyclic(self, fake: GroupScores) -> Tensor:
        """Labels of the generated images whose features are stored."""
        return class_cyclic(torch.arange(len(fake.stored)), self.manifest.num_classes)

    def held_out_copies(self) -> tuple[GroupMemorisation, ...]:
        """The same of the stored real images that are no training images: chance; or empty."""
        if self._chance is None:
            stored = self.real().stored
            labels = self._labels("eval", len(stored))
            self._chance = self._memorisation(stored, labels, held_out=True)
        return self._chance

    def _memorisation(
        self, features: Tensor, labels: Tensor, *, held_out: bool = False
    ) -> tuple[GroupMemorisation, ...]:
        if not self.looks_for_copies or not len(features):
            return ()
        train = self._split("train", self.manifest.num_images("train"))
        side = train.stored.float().to(train.device), self._labels("train", len(train.stored))
        x, counts = features.float().to(train.device), self.manifest.counts["train"]
        if held_out:
            new = memorisation(*side, x, labels, counts).ratio > SAME_IMAGE
            x, labels = x[new.to(x.device)], labels[new]
        return memorisation(*side, x, labels, counts).groups if len(x) else ()

    def _labels(self, split: str, num_stored: int) -> Tensor:
        """Labels of a split's images whose features are stored, (num_stored,) int64."""
        index = open_index(self.config.data.root, self.config.dataset, split)
        rows = stored_numbers(index.num_samples, num_stored)
        return torch.from_numpy(index.labels[rows.numpy()].copy())

    def _split(self, split: str, num_stored: int) -> GroupScores:
        """Scores of a split, computed once per data set and extractor."""
        if split not in self._found:
            root, name = self.config.data.root, self.config.dataset
            index = open_index(root, name, split)
            what = "real" if split == "eval" else split
            what += "-weighed" if split == "eval" and self.weigh else ""
            stem = f"{what}-{self.manifest.fingerprint}-{self.extractor.fingerprint}"
            file = f"{RunDir.EVALUATION}/{stem}{f'-{num_stored}' if num_stored else ''}.bin"
            found = self.empty(num_stored, split)
            known = self.run.read_bytes(file) if self.run.exists(file) else None
            if any(self.world.gather(known is None)):
                reader = ShardReader(root, name, index, cache=open_cache(self.config.data))
                unit = f"features of {'real' if split == 'eval' else 'training'} images"
                with self.pace.showing(index.num_samples, unit, measured=False):
                    found = self.total(
                        partial(self._scores, reader, index, num_stored, split),
                        num_stored,
                        split,
                    )
                if self.world.rank == 0:
                    self.run.write_bytes(file, found.state().numpy().tobytes())
            else:
                assert known is not None
                flat = torch.frombuffer(bytearray(known), dtype=torch.float64)
                found.load(flat)
            self._found[split] = found
        return self._found[split]

    def _scores(
        self,
        reader: ShardReader,
        index: Index,
        num_stored: int,
        split: str,
        share: int,
        check: Check,
    ) -> GroupScores:
        """Scores of a share of a split; the stored features are spread over it."""
        scores = self.empty(num_stored, split)
        for rows in chunks(index.num_samples, _REAL_CHUNK, share, self.num_shares):
            check()
            pixels = torch.stack([torch.from_numpy(reader.load(r)) for r in rows.tolist()])
            labels = torch.from_numpy(index.labels[rows.numpy()].copy())
            place = spread_rows(rows, index.num_samples, num_stored)
            scores.add(self.extractor(pixels), labels, place)
            self.pace.count(len(rows))
        return scores
