"""cbdm classify: does a classifier learn more with generated images? (Table 4)

Read the options, check everything that can be checked, then one call: a ResNet-32 per seed,
trained on the real long-tailed images and the sets of ``--add``, tested on real images.
"""

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cbdm_scale import __version__
from cbdm_scale.cli.command import Command, Typed, main_of
from cbdm_scale.cli.signals import exit_status
from cbdm_scale.cluster.connect import connect, max_resources
from cbdm_scale.cluster.launch import launch
from cbdm_scale.cluster.node_probes import check_gpus
from cbdm_scale.cluster.options import wants_gpus
from cbdm_scale.config.presets import PRESETS
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.data.options import DataConfig
from cbdm_scale.recognition.options import ClassifyOptions, RealData
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import describe_differences, flatten, with_values
from cbdm_scale.storage.lease import lease
from cbdm_scale.storage.path_options import absolute_paths
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import prog_of
from cbdm_scale.tracking.log_evaluation import run_id_of
from cbdm_scale.tracking.runs import default_tracking_uri, end_run_after, start_run, ui_command

if TYPE_CHECKING:  # torch waits until the options are known to be right
    from cbdm_scale.recognition.sets import Sets

COMMAND = Command(
    name="classify",
    about="Train a ResNet-32 on real images and generated ones; precision and recall by group. "
    "Finished seeds are kept: the same command goes on with the next one.",
    parts=(ClassifyOptions(),),
    short={
        "images": ("dataset", "add", "add_per_class", "data.root"),
        "training": ("seeds", "train.epochs", "train.total_images", "train.class_balance"),
        "where": ("name", "cluster.storage", "cluster.workers", "cluster.device", "track.uri"),
    },
)


LITTLE_PIXELS = 10_000_000
"""Pixels to show, of all seeds, that take about as long on a core as Ray to start."""


def parse(argv: Sequence[str]) -> tuple[ClassifyOptions, Typed]:
    """The options, and what was typed; the data set decides whether images are mirrored."""
    typed = COMMAND.read(argv, lambda t: [_usual(t)])
    return with_values(_usual(typed), typed), typed


def _usual(typed: Typed) -> ClassifyOptions:
    dataset = canonical_name(typed.get("dataset", ClassifyOptions.dataset))
    row = next((PRESETS[key] for key in PRESETS if key[0] == dataset), None)
    return ClassifyOptions(data=RealData(flip=row().data.flip if row else True))


def with_workers(options: ClassifyOptions, sets: "Sets") -> ClassifyOptions:
    """The options where nobody said how many workers: for little work this process alone.

    It follows from the work and not from the machine, because the result depends on it.
    """
    images = options.train.num_images(sets.train.count) * len(options.seeds)
    if images * sets.manifest.image_size**2 > LITTLE_PIXELS:
        return options
    return replace(options, cluster=replace(options.cluster, workers=0))


def identity(options: ClassifyOptions, sets: "Sets") -> dict[str, Any]:
    """What decides a seed's result, as plain data.

    The number of workers is part of it: batch normalisation sees a worker's share of a batch.
    """
    fitted = asdict(options.train)
    for runtime in ("epochs", "total_images", "log_every"):
        del fitted[runtime]
    if not options.train.class_balance:  # as runs of older versions say it
        del fitted["class_balance"]
    return {
        "network": "resnet32",
        "dataset": sets.manifest.name,
        "dataset_fingerprint": sets.manifest.fingerprint,
        "added": sets.added.fingerprint if sets.added else "",
        "flip": options.data.flip,
        "workers": options.cluster.ranks,
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
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{run.path('config.json')} is no recognition run's ({error!r}). Choose "
                "another --name."
            ) from error
        if other := describe_differences(before, flatten(decided)):
            raise ValueError(
                f"name ({options.name}) is a run with another configuration: {other}. "
                "Choose another --name, or leave it out."
            )
    run.make_folder()
    about = {"decided": decided, "options": asdict(options), "cbdm_scale": __version__}
    run.write_json(RunDir.CONFIG, json.loads(json.dumps(about)))
    return run


def start(options: ClassifyOptions, typed: Typed) -> int:
    """Check, launch, and say how it went. The exit status."""
    from cbdm_scale.recognition.sets import find_sets

    root = options.data.root
    if options.dataset == "digits_lt":
        from data_prep.prepare import prepare_digits

        prepare_digits(root)
    sets = find_sets(root, options.dataset, options.add, options.add_per_class)
    if "cluster.workers" not in typed:
        options = with_workers(options, sets)
    connect(options.cluster)
    check_gpus(options.cluster)
    run = open_run_dir(options, identity(options, sets))
    uri = options.track.uri or default_tracking_uri(Storage(options.cluster.storage))
    with lease(run, f"run {run.url.rpartition('/')[2]} is being trained"):
        outcome = _train(options, sets, run, uri)
    say_outcome(options, typed, outcome, run, uri, f"{sets.learnt}; tested on {sets.tested}")
    return 0 if outcome["how"] == "finished" else exit_status(outcome["signal"])


def _train(options: ClassifyOptions, sets: "Sets", run: Storage, uri: str) -> dict[str, Any]:
    """Start the run in MLflow and on the workers, and follow it to its end."""
    from cbdm_scale.recognition.worker import Task, train_and_test
    from cbdm_scale.training.distributed import run_in_world

    manifest, name = sets.manifest, run.url.rpartition("/")[2]
    data = DataConfig(
        root=options.data.root,
        flip=options.data.flip,
        num_workers=options.data.num_workers,
    )
    task = Task(
        folder=run.url,
        train=sets.train,
        test=sets.test,
        channels=manifest.channels,
        image_size=manifest.image_size,
        class_names=manifest.class_names,
        groups=manifest.groups,
        fit=options.train,
        data=data,
        seeds=options.seeds,
    )
    run_id = start_run(
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
    print(f"run {name} in {run.url}, {options.cluster.words}", flush=True)
    print(f"learns {sets.learnt}, tested on {sets.tested}", flush=True)
    rank_main = partial(train_and_test, task=task, tracking_uri=uri, run_id=run_id)
    cluster = options.cluster.patient(wants_gpus(options.cluster, max_resources()))
    on_worker = partial(run_in_world, rank_main, cluster.timeout_s)
    return end_run_after(uri, run_id, lambda: launch(on_worker, cluster, run))


def say_outcome(
    options: ClassifyOptions,
    typed: Typed,
    outcome: dict[str, Any],
    run: Storage,
    uri: str,
    words: str,
) -> None:
    """Last and short: where the run is, its numbers, the next command."""
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
    print(f"charts     {ui_command(uri, run_id_of(run))}")
    if outcome["unsent"]:
        print(f"waiting    {outcome['unsent']} records for MLflow. {outcome['why']}")
        print("           The same command sends them.")
    shown = outcome["images_shown"]  # the same length, so that only the data differs
    alone = {**typed, "train.total_images": shown, "train.epochs": None, "name": None}
    if options.add:
        print(f"next       {COMMAND.line(alone, add=None, add_per_class=None)}")
    else:
        network = shlex.quote(network_there(options) or "RUN")
        print(f"next       {prog_of('sample')} --run {network} --format npz")
        print(f"then       {COMMAND.line(alone, add=('IMAGES',))}")
        print("           where IMAGES is the .npz file that the former names")


def network_there(options: ClassifyOptions) -> str:
    """The folder of a network in the same storage that learnt this data set; "" if none."""
    storage, found = Storage(options.cluster.storage), [""]
    for name in storage.list():
        try:
            about = storage.read_json(f"{name}/{RunDir.CONFIG}")
        except (OSError, ValueError):  # no run, or not one that this version knows
            continue
        if (
            about.get("dataset") == options.dataset
            and RunDir(storage.child(name)).checkpoints()
        ):
            found.append(storage.path(name))
    return found[-1]


def resolve(options: ClassifyOptions) -> ClassifyOptions:
    """Absolute paths: a job's working directory vanishes, and workers have their own."""
    options = absolute_paths(options)
    return replace(
        options,
        dataset=canonical_name(options.dataset),
        cluster=replace(options.cluster, storage=Storage(options.cluster.storage).url),
    )


@main_of
def main(argv: Sequence[str]) -> int:
    """Train and test a classifier as the options say. The exit status."""
    options, typed = parse(argv)
    return start(resolve(options), typed)


if __name__ == "__main__":
    sys.exit(main())
