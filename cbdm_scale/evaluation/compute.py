"""From sets to numbers: make missing images, extract features on all workers, compute."""

from functools import partial
from pathlib import Path

import torch

from cbdm_scale.cluster import PoolConfig, on_gpus, run_jobs
from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.data.cache import cache_folder
from cbdm_scale.data.strength import as_text
from cbdm_scale.devices import first_that_fits, roomy_devices
from cbdm_scale.evaluation.cautions import needs_weights
from cbdm_scale.evaluation.floors import held_out_copies, make_reference, real_floor
from cbdm_scale.evaluation.inputs import Inputs
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.evaluation.set_metrics import compute_metrics, num_steps
from cbdm_scale.generation.generate import make_missing
from cbdm_scale.metrics.extract import FeatureSet, extract
from cbdm_scale.metrics.features import Recipe
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.metrics.sources import Images

Numbers = tuple[list[SetResult], tuple[GroupMemorisation, ...], SetResult]
"""Of each set, the copies among held-out real images, and the floor."""


def compute(inputs: Inputs) -> Evaluation:
    """Everything; what is there already (images, features) is not made again."""
    _make_sets(inputs)
    inputs.recipe.load("cpu")  # a file that does not fit is said here, not by every worker
    options, counts = inputs.options, inputs.real.counts["train"]
    real, train = _real_features(inputs), _train_features(inputs)
    fakes = [_features(inputs, s.images, f"omega {as_text(s.omega)}") for s in inputs.sets]

    seed, made = options.seed, len(fakes[0].labels)
    weigh = needs_weights(real.labels, fakes[0].labels, len(counts))

    def numbers(device: torch.device) -> Numbers:
        reference = make_reference(real, train, counts, weigh=weigh, seed=seed, device=device)
        results = []
        for spec, fake in zip(inputs.sets, fakes, strict=True):
            what = f"numbers at omega {as_text(spec.omega)}"
            print(what, flush=True)
            with ProgressBar(num_steps(len(counts)), what) as progress:
                results.append(
                    compute_metrics(
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
                )
        copies = held_out_copies(train, real, counts, seed, device) if train else ()
        floor = real_floor(real, made, counts, weigh=weigh, seed=seed, device=device)
        return results, copies, floor

    num_bytes = sum(side.num_bytes for side in (real, train, *fakes) if side)
    where = roomy_devices(num_bytes, use_gpu=options.cluster.device != "cpu")
    results, copies, floor = first_that_fits(numbers, where)
    pretrained = inputs.pretrained
    return Evaluation(
        id=inputs.id,
        run=pretrained.name,
        checkpoint=pretrained.url,
        trained_images=pretrained.num_seen,
        dataset=inputs.real.name,
        dataset_fingerprint=inputs.real.fingerprint,
        class_names=inputs.real.class_names,
        extractor=options.extractor,
        extractor_fingerprint=inputs.recipe.fingerprint,
        resize=options.resize,
        num_real=len(real.labels),
        held_out_copies=copies,
        sets=tuple(results),
        floor=floor,
        weighed=weigh,
        weights=options.weights,
        key=inputs.key,
    )


def _make_sets(inputs: Inputs) -> None:
    options, guide = inputs.options, inputs.guide
    weights = inputs.pretrained.weights, guide.weights if guide else b""
    for spec in inputs.sets:
        if spec.store:
            print(f"set      {spec.url}", flush=True)
            spec.store.write_plan()
            make_missing(spec.store, *weights, options.num_images, options.cluster)


def _real_features(inputs: Inputs) -> FeatureSet:
    return _features(inputs, inputs.split("eval"), "split eval")


def _train_features(inputs: Inputs) -> FeatureSet | None:
    """Of the training images; None where nobody looks for copies of them."""
    if not inputs.options.memorisation:
        return None
    return _features(inputs, inputs.split("train"), "split train")


def _features(inputs: Inputs, images: Images, what: str) -> FeatureSet:
    """Features of some images, as the options say."""
    options = inputs.options
    return extract_features(images, inputs.recipe, what, options.features, options.cluster)


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
