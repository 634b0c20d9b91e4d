"""Launching a run: check everything that can be checked, then start it and follow it.

Nothing is started and nothing written before the options, the data, the storage, the tracker
and the cluster have been found to fit each other.
"""

import json
import subprocess
from collections.abc import Collection, Mapping
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import asdict
from functools import cache, partial
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from cbdm_scale import __version__
from cbdm_scale.cluster.connect import alive_nodes, connect, max_resources
from cbdm_scale.cluster.launch import launch
from cbdm_scale.cluster.options import wants_gpus
from cbdm_scale.config.presets import PublishedSet
from cbdm_scale.config.run_options import resolve
from cbdm_scale.config.schema import Config, from_dict, identity_options
from cbdm_scale.data.guidance_strength import class_strengths
from cbdm_scale.data.manifest import Manifest, dataset_folder, read_manifest
from cbdm_scale.data.resample import check_resampling
from cbdm_scale.evaluation.cautions import REFERENCE_TAG, reference_warning
from cbdm_scale.evaluation.history import check_best_by
from cbdm_scale.metrics.extractors import recipe_of
from cbdm_scale.models.build import build
from cbdm_scale.models.embeddings import set_trainable
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.finetune import InitFrom, resolve_init_from, write_initial_weights
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.runs.estimate import short_run_warnings
from cbdm_scale.runs.logged_metrics import note
from cbdm_scale.sampling.options import check_trained
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import describe_differences, flatten
from cbdm_scale.storage.lease import lease, wait_until_free
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import clip
from cbdm_scale.tracking.runs import NOTE, default_tracking_uri, end_run_after, start_run
from cbdm_scale.training.options import per_rank


def prepare_data(config: Config, *, write: bool = True) -> Manifest:
    """The data set; the digits are made on the spot where they are missing.

    Without ``write`` they are made in a temporary folder, and nothing of them stays.
    """
    root = config.data.root
    with ExitStack() as stack:
        if config.dataset == "digits_lt":
            from data_prep.prepare import prepare_digits

            made = Storage(dataset_folder(root, config.dataset)).exists("dataset.json")
            if not write and not made:
                root = stack.enter_context(TemporaryDirectory())
            with nullcontext() if write else redirect_stdout(StringIO()):
                fits = config.eval.extractor == "classifier"
                prepare_digits(root, classifier=write and fits)
        manifest = read_manifest(root, config.dataset)
    check_resampling(manifest.num_images("train"), config.exposure)
    check_best_by(
        config.eval.best_by,
        config.eval.extractor,
        manifest.groups,
        manifest.counts.get("eval", manifest.counts["train"]),
        config.eval.num_images,
    )
    check_guidance(config, manifest)
    return manifest


def check_guidance(config: Config, manifest: Manifest) -> None:
    """ValueError if a strength does not fit the classes, or is more than was learnt."""
    counts, mode = manifest.counts["train"], config.eval.guidance_mode
    for strength in config.eval.guidance:
        found = class_strengths("eval.guidance", strength, manifest.groups, counts)
        check_trained("eval.guidance_mode", mode, max(found), config.loss.max_guidance)


def describe(config: Config, images: Manifest | PublishedSet) -> dict[str, Any]:
    """The numbers that follow from a configuration and its data set."""
    train_images = images.num_images("train")
    parameters, learning = _count(network_spec(config, images), config.train.trainable)
    batch, share = (
        config.train.batch_size,
        per_rank(config.train.batch_size, config.cluster.ranks),
    )
    at_once = min(config.train.micro_batch or share, share)
    later = [
        f"resample_power {part.power:g} and balanced_fraction {part.balanced_fraction:g} "
        f"from image {part.start:,} on"
        for part in config.exposure[1:]
    ]
    seen = config.loss.contrasts
    return {
        "run": Storage(config.cluster.storage).child(config.run_name).url,
        "parameters": parameters,
        **({"parameters that learn": learning} if learning < parameters else {}),
        "classes": images.num_classes,
        "training images": train_images,
        "steps per epoch": train_images / batch,
        "epochs": config.train.total_images / train_images,
        "steps": -(-config.train.total_images // batch),
        "images per worker and step": share,
        # Weights and EMA; two moments.
        "checkpoint megabytes": round((8 * parameters + 8 * learning) / 1e6, 1),
        **({"exposure": "; ".join(later)} if later else {}),
        **({f"images that {' and '.join(seen)} see at once": at_once} if seen else {}),
    }


@cache
def _count(spec: NetworkSpec, which: Literal["all", "embeddings", "omega"]) -> tuple[int, int]:
    """Parameters of a network, which needs no memory for them here, and those that learn."""
    with torch.device("meta"):
        net = build(spec)
    learning = set_trainable(net, which)
    return sum(p.numel() for p in net.parameters()), sum(p.numel() for p in learning)


def find_reference_warning(config: Config, manifest: Manifest) -> str:
    """What makes scores against this data set unfair (they are of balanced samples), or ""."""
    counts = manifest.counts
    if config.eval.extractor == "none" or "eval" not in counts:
        return ""
    return reference_warning(counts["eval"], [1] * manifest.num_classes, counts["train"])


def describe_run(config: Config, manifest: Manifest, warning: str) -> str:
    """The first paragraph of a run's note."""
    counts = manifest.counts["train"]
    text = (
        f"{config.title} on {manifest.name}: {manifest.num_classes} classes of {max(counts):,} "
        f"down to {min(counts):,} training images, {config.train.total_images:,} shown in all."
    )
    return f"{text}\n\n**Warning**: {warning}" if warning else text


def described_tags(config: Config, manifest: Manifest, warning: str) -> dict[str, str]:
    """The tags in which MLflow has a run's note, and ``warning`` where there is one."""
    text = note(describe_run(config, manifest, warning))
    return {NOTE: text} | ({REFERENCE_TAG: warning} if warning else {})


def check_extractor(config: Config, manifest: Manifest) -> None:
    """ValueError at the start, not at the first evaluation hours later."""
    if config.eval.extractor == "none":
        return
    recipe_of(config.eval.extractor, config.eval, config.data.root, manifest).load("cpu")


def extractor_problem(config: Config, manifest: Manifest) -> str:
    """Why training would be refused for its extractor; "" where it would not be."""
    try:
        check_extractor(config, manifest)
    except ValueError as error:
        return f"training is refused: {error}"
    return ""


def open_run_dir(config: Config, manifest: Manifest) -> Storage:
    """The run's folder, with config.json in it; ValueError if it is another run's."""
    image = {
        "channels": manifest.channels,
        "size": manifest.image_size,
        "num_classes": manifest.num_classes,
        "fingerprint": manifest.fingerprint,
    }
    storage = Storage(config.cluster.storage)
    storage.check_writable()
    run = storage.child(config.run_name)
    if run.exists(RunDir.CONFIG):
        try:
            there = run.read_json(RunDir.CONFIG)
            before = from_dict(there).flat() | flatten({"image": there.get("image", {})})
        except ValueError as error:
            raise ValueError(
                f"{run.path('config.json')} is damaged ({clip(error, 400)}). Remove the "
                "folder, or choose another --name."
            ) from error
        then, now = (
            identity_options(options)
            for options in (before, config.flat() | flatten({"image": image}))
        )
        if other := describe_differences(then, now):
            total = "train.total_images"
            why = f"A schedule's shares are of {total}. " * (then.get(total) != now.get(total))
            raise ValueError(
                f"name ({config.run_name}) is a run with another configuration: {other}. "
                f"{why}Choose another --name, or the options it began with."
            )
    run.make_folder()
    about = asdict(config) | {"image": image, "classes": manifest.class_names}
    run.write_json(RunDir.CONFIG, json.loads(json.dumps(about)))
    return run


def git_commit() -> str:
    """Commit of the working directory, "" outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def launch_run(
    config: Config,
    tags: Mapping[str, str] | None = None,
    init_from: InitFrom | None = None,
    chosen: Collection[str] = (),
) -> dict[str, Any]:
    """Check, launch, and follow the run to its end; what came of it, its config and ``uri``.

    tags: more of them for the run in MLflow. init_from: what training starts from;
    options that are not among the ``chosen`` ones then follow from its data.
    """
    from cbdm_scale.runs.node_checks import look_at_nodes

    config = resolve(config)
    manifest = prepare_data(config)
    warning = find_reference_warning(config, manifest)
    for text in filter(None, (warning, *short_run_warnings(config))):
        print(f"warning: {text}", flush=True)
    lines: list[str] = []
    if init_from:
        config, lines = resolve_init_from(config, init_from, manifest, chosen=chosen)
        write_initial_weights(config, init_from, manifest, write=False)
    numbers = describe(config, manifest)
    check_extractor(config, manifest)
    storage = Storage(config.cluster.storage)
    run, doing = storage.child(config.run_name), f"run {config.run_name} is being trained"
    wait_until_free(run, doing)
    connect(config.cluster)
    uri = config.track.uri or default_tracking_uri(storage)
    on_gpus = wants_gpus(config.cluster, max_resources())
    if on_gpus or len(alive_nodes()) > 1:
        print(look_at_nodes(config, manifest, uri), flush=True)
    open_run_dir(config, manifest)
    about = {
        "parameters": str(numbers["parameters"]),
        **described_tags(config, manifest, warning),
        **(tags or {}),
    }
    with lease(run, doing):
        if init_from:
            lines += write_initial_weights(config, init_from, manifest, write=True)
        print("\n".join(lines), end="\n" if lines else "")
        outcome = _train(config, manifest, run, uri, about, on_gpus)
    return outcome | {"uri": uri, "config": config, "warning": warning}


def _train(
    config: Config,
    manifest: Manifest,
    run: Storage,
    uri: str,
    tags: Mapping[str, str],
    on_gpus: bool,
) -> dict[str, Any]:
    """Start the run in MLflow and on the workers, and follow it to its end."""
    from cbdm_scale.runs.worker import run_rank
    from cbdm_scale.training.distributed import run_in_world

    run_id = start_run(
        uri,
        config.track.experiment,
        run,
        config.run_name,
        {option: str(value) for option, value in config.flat().items()},
        {
            "git_commit": git_commit(),
            "cbdm_scale": __version__,
            "dataset_fingerprint": manifest.fingerprint,
            "run_folder": run.url,
            **tags,
        },
    )
    print(f"run {config.run_name} in {run.url}, {config.cluster.words}", flush=True)
    rank_main = partial(run_rank, config=config, tracking_uri=uri, run_id=run_id)
    cluster = config.cluster.patient(on_gpus or config.train.compile)
    on_worker = partial(run_in_world, rank_main, cluster.timeout_s)
    return end_run_after(uri, run_id, lambda: launch(on_worker, cluster, run))
