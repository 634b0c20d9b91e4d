"""What an evaluation starts from: the real images, the extractor, the sets to evaluate."""

import hashlib
import json
from dataclasses import dataclass, replace

from cbdm_scale.config.schema import Config
from cbdm_scale.data.guidance_strength import Strength
from cbdm_scale.data.manifest import Manifest, canonical_name
from cbdm_scale.evaluation.options import EvaluateOptions
from cbdm_scale.evaluation.results import FORMAT
from cbdm_scale.evaluation.set_metrics import VERSION
from cbdm_scale.generation.store import ChunkStore, SetImages, open_set
from cbdm_scale.metrics.extractors import recipes_of
from cbdm_scale.metrics.features import Recipe
from cbdm_scale.metrics.sources import Images, SplitImages, Subset, open_images, renumbered
from cbdm_scale.pretrained.network import PretrainedNetwork, find_training_data
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import flatten
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import prog_of, shorten

EVALUATIONS = "~/cbdm_scale/evaluation"


@dataclass(frozen=True)
class ImageSetSpec:
    """A set of generated images to evaluate, made already or not."""

    url: str
    """A path or URL."""

    omega: Strength
    guidance_mode: str
    """cfg, tcfg or autoguidance."""
    guide: str
    """Of autoguidance: checkpoint and weights; "" else."""
    fingerprint: str
    """Short word for everything that decides its images."""

    images: Images
    store: ChunkStore | None
    """Where it is made; None for images that were given."""

    apart: tuple[str, ...]
    """As of ``SetResult``."""


@dataclass(frozen=True)
class Inputs:
    """Everything that decides the numbers."""

    options: EvaluateOptions
    pretrained: PretrainedNetwork
    real: Manifest
    root: str
    """Data root."""
    recipes: tuple[Recipe, ...]
    """Of ``options.extractor``, in this order."""
    sets: tuple[ImageSetSpec, ...]
    guide: PretrainedNetwork | None
    """Of autoguidance."""

    @property
    def key(self) -> str:
        """Eight hex digits of all that decides the numbers."""
        options = self.options
        (recipe, *others), (extractor, *_) = self.recipes, options.extractor
        parts = [VERSION, FORMAT, self.real.fingerprint, recipe.fingerprint]
        parts += [extractor, options.resize, options.seed, options.memorisation]
        parts += [self.pretrained.checkpoint, *(spec.fingerprint for spec in self.sets)]
        parts += [recipe.fingerprint for recipe in others]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    @property
    def id(self) -> str:
        """The checkpoint to read, and ``key``."""
        return f"{self.pretrained.checkpoint}-{self.key}"

    @property
    def home(self) -> Storage:
        """The folder of this evaluation."""
        run = self.pretrained.folder
        inside = f"{run}/{RunDir.EVALUATION}" if run else EVALUATIONS
        return Storage(self.options.out or inside).child(self.id)

    @property
    def num_images(self) -> int:
        """Of every set."""
        return self.sets[0].images.count

    def split(self, name: str) -> SplitImages:
        """Real images of a split, such as eval."""
        return SplitImages(self.root, self.real.name, name)


def find_inputs(options: EvaluateOptions, pretrained: PretrainedNetwork) -> Inputs:
    """Find and check it all; ValueError says what is not there, or does not fit."""
    pretrained = _with_dataset(options, pretrained)
    real, root = find_training_data(pretrained, options.data.root)
    config = pretrained.config
    if real is None:
        raise ValueError(
            f"data.root: the run learnt from {config.dataset} in {config.data.root}, which is "
            "not there any more, or was changed. Say where it is with --data.root."
        )
    if "eval" not in real.counts:
        raise ValueError(
            f"data set {real.name} in {root} has no eval split to compare with, only "
            f"{shorten(list(real.counts))}. Prepare it again with --eval-source, real images: "
            f"{prog_of('prepare')}."
        )
    if pretrained.spec.num_classes != real.num_classes:
        raise ValueError(
            f"dataset {real.name} has {real.num_classes} classes, the network "
            f"{pretrained.spec.num_classes}. Give the --dataset that it learnt from."
        )
    recipes = recipes_of(options.extractor, options, root, real)
    guide = options.load_guide(pretrained)
    sets = (
        _given(options, pretrained.config, real)
        if options.samples
        else _planned(options, pretrained, real, guide)
    )
    return Inputs(options, pretrained, real, root, recipes, sets, guide)


def _with_dataset(options: EvaluateOptions, pretrained: PretrainedNetwork) -> PretrainedNetwork:
    """The pretrained with the data set that the user names, for a network that names none."""
    known, named = pretrained.config.dataset, canonical_name(options.dataset)
    if not known and not named:
        raise ValueError(
            f"dataset is missing: {options.run} does not say what it learnt from. Give "
            "--dataset NAME and --data.root FOLDER."
        )
    if known and named not in ("", known):
        raise ValueError(f"dataset ({named}): the run learnt from {known}. Leave it out.")
    return (
        pretrained
        if known
        else replace(pretrained, config=replace(pretrained.config, dataset=named))
    )


def _planned(
    options: EvaluateOptions,
    pretrained: PretrainedNetwork,
    real: Manifest,
    guide: PretrainedNetwork | None,
) -> tuple[ImageSetSpec, ...]:
    """A set for each guidance strength, class by class in turn (Section 4.1)."""
    specs = []
    for omega in options.omegas:
        plan = options.plan(pretrained, real, omega, guide)
        _check_shape(plan.shape, real, options.run)
        store = ChunkStore(Storage(pretrained.samples, "").child(plan.name), plan)
        images = SetImages(store, plan.chunks(options.num_images))
        name = f"{plan.name}-{options.num_images}"
        by = plan.mode, plan.guided_by
        apart = *_sampler(options, pretrained.config), *_seed(options, pretrained.config)
        if guide and guide.folder != pretrained.folder:
            apart = *apart, f"guide_{guide.name}-{guide.weights_sha256[:8]}"
        specs.append(ImageSetSpec(store.folder.url, omega, *by, name, images, store, apart))
    return tuple(specs)


def _sampler(options: EvaluateOptions, config: Config) -> list[str]:
    """Each option of the sampler that is not the run's: sample.num_steps_50."""
    mine, own = (flatten({"sample": one.sample.to_dict()}) for one in (options, config))
    return [f"{option}_{value}" for option, value in mine.items() if own.get(option) != value]


def _seed(options: EvaluateOptions, config: Config) -> list[str]:
    return [] if options.seed == config.eval_seed else [f"seed_{options.seed}"]


def _given(
    options: EvaluateOptions, config: Config, real: Manifest
) -> tuple[ImageSetSpec, ...]:
    """The images that the user names."""
    where, number = options.samples, options.num_images
    [omega], mode, guide = options.omegas, str(options.guidance_mode), ""
    images: Images
    named = ""
    try:
        if made := Storage(where).exists("set.json"):
            found = open_set(where, number)
            plan = found.store.plan
            omega, mode, guide = plan.omega, plan.mode, plan.guided_by
            named = plan.name
            images = renumbered(found, plan.class_names, real.class_names, where)
        else:
            images = open_images(where, real.class_names)
    except ValueError as error:
        raise ValueError(f"samples: {error}") from error
    if not made:
        if number > images.count:
            raise ValueError(
                f"num_images ({number}) is more than samples ({where}) holds, {images.count}. "
                "Leave it out to take them all."
            )
        if 0 < number < images.count:
            images = Subset(images, tuple(range(number)))
    _check_shape(images.read([0]).shape[1:], real, where)
    labels = images.labels
    if labels.max() >= real.num_classes:
        raise ValueError(
            f"samples ({where}) has label {labels.max()}, the data set {real.name} has "
            f"{real.num_classes} classes. Number the classes as the data set does."
        )
    fingerprint = f"{images.fingerprint}-{images.count}-{omega}"
    named = named or f"{where.rstrip('/').rpartition('/')[2]}-{images.fingerprint[:8]}"
    apart = f"samples_{named}", *_seed(options, config)
    return (ImageSetSpec(where, omega, mode, guide, fingerprint, images, None, apart),)


def _check_shape(shape: tuple[int, ...], real: Manifest, where: str) -> None:
    expected = real.channels, real.image_size, real.image_size
    if tuple(shape) != expected:
        sizes = [" x ".join(map(str, s)) for s in (shape, expected)]
        raise ValueError(
            f"samples ({where}) are {sizes[0]} (channels, height, width), the images of data "
            f"set {real.name} are {sizes[1]}. Scale them first, or give the images of a "
            "network that learnt from this data set."
        )
