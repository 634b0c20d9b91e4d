"""python -m cbdm_scale.classify: does a classifier learn more with generated images? (Table 4)

Parse, check everything that can be checked, then one call: a ResNet-32 per seed, trained on the
real long-tailed images and the sets of ``--add``, tested on real images.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Annotated, Any

import tyro

from cbdm_scale import __version__
from cbdm_scale.cluster import ClusterConfig
from cbdm_scale.config.presets import PRESETS
from cbdm_scale.config.schema import find_option, flatten
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.data.options import DataConfig
from cbdm_scale.recognition.fit import FitConfig
from cbdm_scale.recognition.mixed_images import parse_per_class
from cbdm_scale.recognition.sets import Sets, find_sets
from cbdm_scale.runs.run_dir import differing
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import refuse_typed_passwords, split_scheme
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking import TrackConfig

PROG = "python -m cbdm_scale.classify"


@dataclass(frozen=True, kw_only=True)
class RealData:
    root: str = "~/cbdm_scale/shards"
    """Folder or URL that holds the data sets made by `python -m data_prep`."""

    flip: bool = True
    """Mirror training images, each with probability 1/2; the digits' default is not to."""

    processes: int = 0
    """Processes that read and decode, per worker; 0 is a thread of the worker."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    dataset: str = "digits_lt"
    """Whose real training images are learnt, and whose test images are recognised."""

    add: tuple[str, ...] = ()
    """Generated images besides: a set of `python -m cbdm_scale.sample`, an .npz, a folder with
    a folder a class, or DATASET:SPLIT for shards. Table 4: 50,000."""

    add_per_class: str = "all"
    """Generated images of each class: a number (the first ones), fill (as many as the largest
    class has more than this one), or all, as in Table 4."""

    seeds: tuple[int, ...] = (0,)
    """One network each: first weights, order, crops and mirrors follow from it."""

    name: str = ""
    """Folder of the run in cluster.storage; "" is data set and a hash of what decides."""

    data: RealData = field(default_factory=RealData)
    train: FitConfig = field(default_factory=FitConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def __post_init__(self) -> None:
        parse_per_class(self.add_per_class)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(
                f"seeds {self.seeds} must be different numbers from 0 on. Try --seeds 0 1 2."
            )
        batch, workers = self.train.batch_size, self.cluster.workers
        if self.cluster.fewest < workers:
            raise ValueError(
                f"cluster.min_workers ({self.cluster.min_workers}): batch normalisation sees a "
                "worker's share of a batch, so that the number of workers is fixed. Try 0."
            )
        if batch % workers:
            raise ValueError(
                f"train.batch_size ({batch}) must be divisible by the number of workers "
                f"({workers}). Try --train.batch-size {max(batch // workers, 1) * workers}."
            )


def parse(argv: Sequence[str]) -> ClassifyOptions:
    """The options; the data set decides whether images are mirrored."""
    dataset = canonical_name(find_option(argv, "dataset", "digits_lt"))
    row = next((PRESETS[key] for key in PRESETS if key[0] == dataset), None)
    flip = row().data.flip if row else True
    base = ClassifyOptions(data=RealData(flip=flip))

    def command(
        options: Annotated[ClassifyOptions, tyro.conf.arg(name="")] = base,
    ) -> ClassifyOptions:
        """Train a ResNet-32 on real images and generated ones; precision and recall by group.

        Finished seeds are kept: the same command goes on with the next one.
        """
        return options

    return tyro.cli(command, args=list(argv), prog=PROG)


def identity(options: ClassifyOptions, sets: Sets) -> dict[str, Any]:
    """What decides a seed's result, as plain data.

    The number of workers is part of it: batch normalisation sees a worker's share of a batch.
    """
    fitted = asdict(options.train)
    for runtime in ("epochs", "total_images", "log_every"):
        del fitted[runtime]
    return {
        "network": "resnet32",
        "dataset": sets.manifest.name,
        "dataset_fingerprint": sets.manifest.fingerprint,
        "added": sets.added.fingerprint if sets.added else "",
        "flip": options.data.flip,
        "workers": options.cluster.workers,
        "train": fitted | {"images": options.train.num_images(sets.train.count)},
    }


def open_run_dir(options: ClassifyOptions, decided: dict[str, Any]) -> Storage:
    """The run's folder, with config.json in it; ValueError if it is another run's."""
    digest = hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:8]
    storage = Storage(options.cluster.storage)
    storage.check_writable()
    run = storage.child(options.name or f"{decided['dataset']}-resnet32-{digest}")
    if run.exists(RunDir.CONFIG):
        try:
            before = flatten(run.read_json(RunDir.CONFIG)["decided"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{run.path('config.json')} is no recognition run's ({error!r}). Choose "
                "another --name."
            ) from error
        if other := differing(before, flatten(decided)):
            raise ValueError(
                f"name ({options.name}) is a run with another configuration: {other}. "
                "Choose another --name, or leave it out."
            )
    run.make_folder()
    about = {"decided": decided, "options": asdict(options), "cbdm_scale": __version__}
    run.write_json(RunDir.CONFIG, json.loads(json.dumps(about)))
    return run


def start(options: ClassifyOptions) -> int:
    """Check, launch, and say how it went. The exit status."""
    from cbdm_scale import cluster, tracking
    from cbdm_scale.recognition.worker import Task, train_and_test
    from cbdm_scale.training.distributed import run_in_world

    root = options.data.root
    if options.dataset == "digits_lt":
        from data_prep.prepare import prepare_digits

        prepare_digits(root)
    sets = find_sets(root, options.dataset, options.add, options.add_per_class)
    manifest = sets.manifest
    cluster.connect(options.cluster)
    run = open_run_dir(options, identity(options, sets))
    task = Task(
        folder=run.url,
        train=sets.train,
        test=sets.test,
        channels=manifest.channels,
        image_size=manifest.image_size,
        groups=manifest.groups,
        fit=options.train,
        data=DataConfig(root=root, flip=options.data.flip, processes=options.data.processes),
        seeds=options.seeds,
    )
    uri = options.track.uri or tracking.default_tracking_uri(Storage(options.cluster.storage))
    name = run.url.rpartition("/")[2]
    run_id = tracking.start_run(
        uri,
        options.track.experiment,
        run,
        name,
        {key: str(value) for key, value in flatten(asdict(options)).items()},
        {
            "kind": "recognition",
            "dataset": manifest.name,
            "dataset_fingerprint": manifest.fingerprint,
            "added": " ".join(options.add),
            "added_images": str(sets.added.count if sets.added else 0),
            "tested_on": sets.tested,
            "cbdm_scale": __version__,
            "run_folder": run.url,
        },
    )
    print(f"run {name} in {run.url}, {options.cluster.workers} workers", flush=True)
    print(f"learns {sets.learnt}, tested on {sets.tested}", flush=True)
    rank_main = partial(train_and_test, task=task, tracking_uri=uri, run_id=run_id)
    on_worker = partial(run_in_world, rank_main, options.cluster.timeout_s)
    outcome = tracking.end_run_after(
        uri, run_id, lambda: cluster.launch(on_worker, options.cluster, run)
    )
    say_outcome(options, outcome, run, uri, f"{sets.learnt}; tested on {sets.tested}")
    return 0


def say_outcome(
    options: ClassifyOptions, outcome: dict[str, Any], run: Storage, uri: str, words: str
) -> None:
    """Last and short: where the run is, its numbers, the next command."""
    from cbdm_scale import tracking

    print(f"\nrun        {run.url} ({outcome['how']})")
    if outcome["how"] == "stopped":
        print("next       the same command goes on; the seed that was interrupted begins again")
        return
    print(f"showed     {outcome['images_shown']:,} images of {words}")
    print(f"seeds      {' '.join(map(str, options.seeds))}: mean ± half the range")
    for name, scores in outcome["scores"].items():
        cells = [f"{k} {v['mean']:.3f} ± {v['half_range']:.3f}" for k, v in scores.items()]
        print(f"{name:<10} {'  '.join(cells)}")
    for name, shares in outcome["taken_for"].items():
        found = ", ".join(f"{other} {share:.0%}" for other, share in shares.items())
        print(f"{name:<10} taken for {found}")
    if any(outcome["classes_never_predicted"]):
        never = "/".join(map(str, outcome["classes_never_predicted"]))
        print(f"note       no image was taken for {never} of the classes: their precision is 0")
    print(f"classifier {run.path('classifier.safetensors')}")
    print(f"charts     {tracking.ui_command(uri)}")
    if outcome["unsent"]:
        print(f"waiting    {outcome['unsent']} records for MLflow; the same command sends them")
    same = f"{PROG} --dataset {options.dataset} --data.root {options.data.root}"
    same += f" --train.total-images {outcome['images_shown']}"
    print(f"next       {same}" + ("" if options.add else " --add SET"))


def resolve(options: ClassifyOptions) -> ClassifyOptions:
    """Absolute paths: a job's working directory vanishes, and workers have their own."""
    root = options.data.root
    if not split_scheme(root)[0]:
        root = Storage(root).url
    storage = Storage(options.cluster.storage).url
    return replace(
        options,
        dataset=canonical_name(options.dataset),
        data=replace(options.data, root=root),
        cluster=replace(options.cluster, storage=storage),
    )


def main(argv: Sequence[str]) -> int:
    try:
        refuse_typed_passwords(argv)
        return start(resolve(parse(argv)))
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
