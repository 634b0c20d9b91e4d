"""From sets to numbers: make missing images, extract features on all workers, compute."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.cluster.pool import on_gpus, run_jobs
from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.data.cache import cache_folder
from cbdm_scale.data.guidance_strength import as_text
from cbdm_scale.devices import first_that_fits, roomy_devices
from cbdm_scale.evaluation.cautions import needs_weights
from cbdm_scale.evaluation.floors import held_out_copies, make_reference, real_floors
from cbdm_scale.evaluation.inputs import Inputs
from cbdm_scale.evaluation.results import Evaluation, SpaceResult
from cbdm_scale.evaluation.set_metrics import compute_metrics, num_steps
from cbdm_scale.generation.chunks import make_missing_chunks
from cbdm_scale.metrics.extract import FeatureSet, extract
from cbdm_scale.metrics.extractors import options_without_eval
from cbdm_scale.metrics.features import Recipe
from cbdm_scale.metrics.sources import Images


def check_extractors(inputs: Inputs) -> None:
    """ValueError, before any image is made, where an extractor does not take these images."""
    first = torch.from_numpy(inputs.split("eval").read([0]))
    for recipe in inputs.recipes:
        with options_without_eval():
            recipe.load("cpu")(first)


def compute_evaluation(inputs: Inputs) -> Evaluation:
    """Everything; what is there already (images, features) is not made again."""
    options, pretrained = inputs.options, inputs.pretrained
    real, made = inputs.split("eval"), inputs.sets[0].images
    _make_sets(inputs)
    labels = [torch.from_numpy(side.labels) for side in (real, made)]
    weigh = needs_weights(labels[0], labels[1], inputs.real.num_classes)
    spaces = [
        _numbers_in_space(inputs, name, recipe, weigh)
        for name, recipe in zip(options.extractor, inputs.recipes, strict=True)
    ]
    return Evaluation(
        **vars(spaces[0]),
        further=tuple(spaces[1:]),
        id=inputs.id,
        run=pretrained.name,
        checkpoint=pretrained.url,
        trained_images=pretrained.num_seen,
        dataset=inputs.real.name,
        dataset_fingerprint=inputs.real.fingerprint,
        class_names=inputs.real.class_names,
        resize=options.resize,
        num_real=real.count,
        weighed=weigh,
        weights=options.weights,
        key=inputs.key,
    )


def _numbers_in_space(inputs: Inputs, name: str, recipe: Recipe, weigh: bool) -> SpaceResult:
    """The numbers of every set in the feature space of an extractor.

    weigh: whether every class of the real images counts alike
    """
    options, counts = inputs.options, inputs.real.counts["train"]
    by = f" by {name}" if len(inputs.recipes) > 1 else ""

    def features(images: Images, what: str) -> FeatureSet:
        return extract_features(images, recipe, what + by, options.features, options.cluster)

    real = features(inputs.split("eval"), "split eval")
    # No look for copies of training images, no features of them.
    train = features(inputs.split("train"), "split train") if options.memorisation else None
    fakes = [features(s.images, f"omega {as_text(s.omega)}") for s in inputs.sets]
    seed, made = options.seed, len(fakes[0].labels)

    def numbers(device: torch.device) -> SpaceResult:
        reference = make_reference(real, train, counts, weigh=weigh, seed=seed, device=device)
        results = []
        for spec, fake in zip(inputs.sets, fakes, strict=True):
            what = f"numbers at omega {as_text(spec.omega)}{by}"
            print(what, flush=True)
            with ProgressBar(num_steps(len(counts)), what) as progress:
                found = compute_metrics(
                    reference,
                    fake,
                    counts,
                    omega=spec.omega,
                    guidance_mode=spec.guidance_mode,
                    guide=spec.guide,
                    images=spec.url,
                    seed=seed,
                    step=partial(progress.add, 1),
                )
                results.append(replace(found, apart=spec.apart))
        what = f"numbers of real images{by}"
        with ProgressBar(num_steps(len(counts)), what) as progress:
            copies = held_out_copies(train, real, counts, seed, device) if train else ()
            floor, shuffled = real_floors(
                *(real, made, counts),
                weigh=weigh,
                seed=seed,
                device=device,
                step=partial(progress.add, 1),
            )
        return SpaceResult(
            extractor=name,
            extractor_fingerprint=recipe.fingerprint,
            held_out_copies=copies,
            sets=tuple(results),
            floor=floor,
            shuffled=shuffled,
        )

    num_bytes = sum(side.pool.nbytes for side in (real, train, *fakes) if side)
    where = roomy_devices(num_bytes, use_gpu=options.cluster.device != "cpu")
    return first_that_fits(numbers, where)


def _make_sets(inputs: Inputs) -> None:
    options, guide = inputs.options, inputs.guide
    weights = inputs.pretrained.weights, guide.weights if guide else b""
    for spec in inputs.sets:
        if spec.store:
            print(f"set      {spec.url}", flush=True)
            spec.store.write_plan()
            make_missing_chunks(spec.store, *weights, options.num_images, options.cluster)


def extract_features(
    images: Images, recipe: Recipe, what: str, folder: str, cluster: PoolConfig
) -> FeatureSet:
    """Features of some images, from the cache in ``folder`` ("": its usual place) or computed.

    ``what`` names the images where progress is shown.
    """
    with ProgressBar(images.count, f"features of {what}") as progress:

        def reached(done: int, kept: int) -> None:
            progress.start = kept
            progress.reach(done)

        return extract(
            images,
            recipe,
            Path(folder).expanduser() if folder else cache_folder() / "features",
            partial(run_jobs, config=cluster, log=progress.log),
            on_gpus=partial(on_gpus, cluster),
            reached=reached,
        )
