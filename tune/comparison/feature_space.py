"""What every set of a comparison is scored by: features of real and training images, a space.

A set's scores stand beside it, sets/<network>/<set>-scores.json, and are computed once. Those
in the space of a further extractor are <set>-<its fingerprint>-scores.json.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache

import torch

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import Config
from cbdm_scale.data.cache import cache_folder
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.metrics.extract import FeatureSet, extract
from cbdm_scale.metrics.extractors import recipe_of
from cbdm_scale.metrics.features import Extractor, Recipe
from cbdm_scale.metrics.sources import SplitImages
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import prog_of
from tune.comparison.choice import Point, SetsInSpace
from tune.comparison.protocol import digest
from tune.comparison.scores import VERSION, Scorer, Scores, references, scorers
from tune.comparison.sets import (
    HALVES,
    Features,
    features_name,
    read_set,
    set_key,
    set_name,
)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """The scores of a set that were computed before."""

    key: str
    halves: tuple[Scores, ...]


@dataclass(frozen=True)
class FeatureSpace:
    """An extractor, and the images that sets are compared with. Small: it goes to processes."""

    config: Config
    """Of the control: data set and extractor."""

    extractor: str
    """Fingerprint of the extractor."""

    first: str
    """That of the first space's, whose features are in the file of a set."""

    fingerprint: str
    """Of the data set."""

    @classmethod
    def prepare(cls, config: Config, extractors: Sequence[str]) -> "tuple[FeatureSpace, ...]":
        """One in the space of each; computes features of the real images that are not known."""
        manifest = read_manifest(config.data.root, config.dataset)
        if "eval" not in manifest.counts:
            raise ValueError(
                f"data set {manifest.name} has no eval split, and a comparison needs other "
                f"real images. Prepare it again with --eval-source: {prog_of('prepare')}."
            )
        spaces = [with_options(config, {"eval.extractor": name}) for name in extractors]
        marks = [_recipe(space).fingerprint for space in spaces]
        for space in spaces:
            for split in ("eval", "train"):
                _features(space, split)
        return tuple(
            cls(space, mark, marks[0], manifest.fingerprint)
            for space, mark in zip(spaces, marks, strict=True)
        )

    def load_extractor(self, device: torch.device) -> Extractor:
        """Whose features are compared here."""
        return _recipe(self.config).load(device)

    @property
    def num_images(self) -> int:
        """Of a set."""
        return self.config.eval.num_images

    def scorers(self) -> tuple[Scorer, Scorer]:
        """Of each half of the real images; prepared once a process."""
        return _scorers(self)

    def references(self) -> dict[str, Scores]:
        """What is had without a network, by name; once a process."""
        return _references(self)

    @staticmethod
    def sets_of(config: Config) -> Storage:
        """The folder of a network's sets."""
        above = config.cluster.storage.rpartition("/")[0]
        return Storage(above).child("sets").child(config.run_name)

    def set_name(self, config: Config, images: int, omega: float, guide: int = 0) -> str:
        """Where a set's features are in that folder; guide: training images of the one that
        guides."""
        name = set_name(images, omega, set_key(config, self.num_images, self.first, guide))
        return name if self.extractor == self.first else features_name(name, self.extractor)

    def read(self, config: Config, images: int, omega: float, guide: int = 0) -> Features:
        """The features of a set."""
        return read_set(self.sets_of(config), self.set_name(config, images, omega, guide))

    def scores(
        self, config: Config, images: int, omega: float, guide: int = 0
    ) -> tuple[Scores, ...]:
        """Of both halves of a set, each against its half of the real images."""
        folder = self.sets_of(config)
        file = f"{self.set_name(config, images, omega, guide)}-scores.json"
        key = digest(VERSION, self.fingerprint)
        if folder.exists(file):
            known: _Known = folder.read_json(file, _Known)
            if known.key == key:
                return known.halves
        made = self.read(config, images, omega, guide)
        both = enumerate(self.scorers())
        halves = [scorer.scores(made.half(number)) for number, scorer in both]
        folder.write_json(file, asdict(_Known(key=key, halves=tuple(halves))))
        return tuple(halves)

    def sets(
        self,
        config: Config,
        stops: dict[int, int],
        strengths: tuple[float, ...],
        guide: int = 0,
    ) -> SetsInSpace:
        """Of one network whose sets are all there."""
        points: list[Point] = [(stop, omega) for stop in stops for omega in strengths]
        scores = {(s, o): self.scores(config, stops[s], o, guide) for s, o in points}

        def load(point: Point) -> Features:
            return self.read(config, stops[point[0]], point[1], guide)

        return SetsInSpace(load, scores, self.scorers())


def _recipe(config: Config) -> Recipe:
    manifest = read_manifest(config.data.root, config.dataset)
    return recipe_of(config.eval.extractor, config.eval, config.data.root, manifest)


def _features(config: Config, split: str) -> FeatureSet:
    images = SplitImages(config.data.root, config.dataset, split)
    return extract(images, _recipe(config), cache_folder() / "features")


@cache
def _scorers(space: FeatureSpace) -> tuple[Scorer, Scorer]:
    config = space.config
    counts = read_manifest(config.data.root, config.dataset).counts["train"]
    real, train = (_features(config, split) for split in ("eval", "train"))
    unseen = ~torch.isin(real.hashes, train.hashes)
    return scorers(_labelled(real), _labelled(train), counts, unseen)


@cache
def _references(space: FeatureSpace) -> dict[str, Scores]:
    return references(space.scorers(), space.num_images // HALVES)


def _labelled(found: FeatureSet) -> Features:
    labels = found.labels.clone()
    logits = found.logits
    seen = torch.full_like(labels, -1) if logits is None else logits.argmax(1)
    return Features(found.pool.clone(), labels, seen)
