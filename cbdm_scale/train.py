"""python -m cbdm_scale.train: parse, check everything that can be checked, then one call.

Nothing is started and nothing written before the options, the data, the storage, the tracker
and the cluster have been found to fit each other.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import asdict, replace
from functools import partial
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import tyro

from cbdm_scale import __version__
from cbdm_scale.config import Config, build_network, find_option, flatten, is_runtime, upgraded
from cbdm_scale.data.loader import DataConfig
from cbdm_scale.data.manifest import Manifest, canonical_name, dataset_folder, read_manifest
from cbdm_scale.data.resample import check_resampling
from cbdm_scale.diffusion.process import ProcessName
from cbdm_scale.evaluation.history import check_best_by
from cbdm_scale.presets import PRESETS, custom, preset
from cbdm_scale.remote import split_scheme
from cbdm_scale.sampling.generate import usual_sampler
from cbdm_scale.storage import Storage

NEXT_DATASET = "python -m data_prep cifar10-lt --source DIR --out ROOT"


def parse(argv: Sequence[str]) -> tuple[Config, bool]:
    """The configuration of a command line and whether it only asks for a dry run.

    The data set, the preset and the process decide the defaults of everything else, so they are
    read first.
    """
    base = starting_point(argv)

    def command(
        config: Annotated[Config, tyro.conf.arg(name="")] = base, dry_run: bool = False
    ) -> tuple[Config, bool]:
        """Train a class-balancing diffusion model.

        Args:
            config: the run
            dry_run: print the resolved configuration and what follows from it, and stop
        """
        return config, dry_run

    return tyro.cli(command, args=list(argv), prog="python -m cbdm_scale.train")


def starting_point(argv: Sequence[str]) -> Config:
    """The preset's values, and the usual sampler of --process where that is another one's."""
    base = row_of(argv)
    process = find_option(argv, "process", base.process)
    if process == base.process:
        return base
    name = cast(ProcessName, process)  # Config checks it
    return replace(base, process=name, sample=usual_sampler(name))


def row_of(argv: Sequence[str]) -> Config:
    """The preset of the data set, or for one that is in no table a row that fits its images."""
    dataset = find_option(argv, "dataset", "digits_lt")
    row = find_option(argv, "preset", "cbdm")
    known = sorted({name for name, _ in PRESETS})
    if canonical_name(dataset) in known:
        return preset(dataset, row)
    try:
        manifest = read_manifest(find_option(argv, "data.root", DataConfig().root), dataset)
    except ValueError as error:
        raise ValueError(
            f"dataset ({dataset}) is none of {', '.join(known)}, and no data set of your own: "
            f"{error}"
        ) from None
    return custom(manifest.name, row, manifest.image_size)


def resolve(config: Config) -> Config:
    """Absolute paths: a job's working directory vanishes, and workers have their own."""
    root = config.data.root
    if not split_scheme(root)[0]:
        root = Storage(root).url
    cache = Storage(config.data.cache).url if config.data.cache else ""
    storage = Storage(config.cluster.storage).url
    return replace(
        config,
        data=replace(config.data, root=root, cache=cache),
        cluster=replace(config.cluster, storage=storage),
    )


def find_data(config: Config, *, write: bool = True) -> Manifest:
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
                prepare_digits(root, classifier=write)
        manifest = read_manifest(root, config.dataset)
    data = config.data
    check_resampling(manifest.num_images("train"), data.resample_power, data.balanced_fraction)
    check_best_by(
        config.eval.best_by,
        config.eval.extractor,
        manifest.groups,
        manifest.counts.get("eval", manifest.counts["train"]),
        config.eval.num_images,
    )
    return manifest


def describe(config: Config, manifest: Manifest) -> dict[str, Any]:
    """The numbers that follow from a configuration and its data set."""
    net = build_network(
        config,
        channels=manifest.channels,
        image_size=manifest.image_size,
        num_classes=manifest.num_classes,
    )
    parameters = sum(p.numel() for p in net.parameters())
    batch = config.train.batch_size
    return {
        "run": Storage(config.cluster.storage).child(config.run_name).url,
        "parameters": parameters,
        "classes": manifest.num_classes,
        "training images": manifest.num_images("train"),
        "steps per epoch": manifest.num_images("train") / batch,
        "epochs": config.train.total_images / manifest.num_images("train"),
        "steps": -(-config.train.total_images // batch),
        "images per worker and step": config.train.per_rank(config.cluster.workers),
        "checkpoint megabytes": round(parameters * 16 / 1e6, 1),  # weights, EMA, two moments
    }


def claim_run(config: Config, manifest: Manifest) -> Storage:
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
    if run.exists("config.json"):
        try:
            before = upgraded(flatten(run.read_json("config.json")))
        except ValueError as error:
            raise ValueError(
                f"{run.path('config.json')} is damaged ({error}). Remove the folder, or choose "
                "another --name."
            ) from error
        now = config.flat() | flatten({"image": image})
        differing = [
            f"{option} ({before.get(option, 'absent')} there, {now.get(option, 'absent')} here)"
            for option in sorted(now.keys() | before.keys())
            if not is_runtime(option) and before.get(option) != now.get(option)
        ]
        if differing:
            raise ValueError(
                f"name ({config.run_name}) is a run with another configuration: "
                f"{', '.join(differing)}. Choose another --name, or the options it began with."
            )
    run.make_folder()
    run.write_json("config.json", json.loads(json.dumps(asdict(config) | {"image": image})))
    return run


def check_extractor(config: Config, manifest: Manifest) -> None:
    """ValueError at the start, not at the first evaluation hours later."""
    if config.eval.extractor == "none":
        return
    folder = Storage(dataset_folder(config.data.root, manifest.name))
    recipe = config.eval.recipe(folder.url, folder.read_path)
    recipe.load("cpu")


def git_commit() -> str:
    """Commit of the working directory, "" outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def start(config: Config) -> int:
    """Check, launch, and say how it went. The exit status."""
    from cbdm_scale import cluster, tracking
    from cbdm_scale.run import run_rank

    manifest = find_data(config)
    numbers = describe(config, manifest)
    check_extractor(config, manifest)
    cluster.connect(config.cluster)
    run = claim_run(config, manifest)
    uri = config.track.uri or tracking.default_tracking_uri(Storage(config.cluster.storage))
    run_id = tracking.start_run(
        uri,
        config.track.experiment,
        run,
        config.run_name,
        {option: str(value) for option, value in config.flat().items()},
        {
            "git_commit": git_commit(),
            "cbdm_scale": __version__,
            "dataset_fingerprint": manifest.fingerprint,
            "parameters": str(numbers["parameters"]),
            "run_folder": run.url,
        },
    )
    print(f"run {config.run_name} in {run.url}, {config.cluster.workers} workers", flush=True)
    rank_main = partial(run_rank, config=config, tracking_uri=uri, run_id=run_id)
    outcome = tracking.followed(
        uri, run_id, lambda: cluster.launch(rank_main, config.cluster, run)
    )
    say_outcome(config, outcome, run, uri)
    return 0


def say_outcome(config: Config, outcome: dict[str, Any], run: Storage, uri: str) -> None:
    """Last and short: where the run is, its numbers, the next command."""
    progress = outcome["progress"]
    print(f"\nrun      {run.url} ({outcome['how']} at {progress['images']:,} images)")
    if progress["skipped_steps"] or sum(progress["substitutions"]):
        print(
            f"mended   {progress['skipped_steps']} steps skipped, "
            f"{sum(progress['substitutions'])} damaged images replaced"
        )
    if outcome["how"] == "stopped":
        print("next     the same command goes on from here")
        return
    for omega, values in outcome["scores"].items():
        by_group = " ".join(
            f"{group} {values[f'fid_{group}']:.1f}"
            for group in ("many", "medium", "few")
            if f"fid_{group}" in values
        )
        fidelity = f", label kept {values['fidelity']:.0%}" if "fidelity" in values else ""
        print(f"FID      {values['fid']:.1f} ({by_group}){fidelity} at omega {omega}")
    for line in outcome["remarks"]:
        print(line)
    grid = f"samples/{progress['images']:012d}.png"
    print(f"samples  {run.path(grid)}")
    print(f"charts   mlflow ui --backend-store-uri {uri}")
    if outcome["unsent"]:
        print(f"waiting  {outcome['unsent']} records for MLflow; the same command sends them")
    if config.dataset == "digits_lt":
        print(f"next     {NEXT_DATASET}")


def main(argv: Sequence[str]) -> int:
    try:
        config, dry_run = parse(argv)
        config = resolve(config)
        if dry_run:
            for option, value in config.flat().items():
                print(f"{option} = {value}")
            print()
            for name, number in describe(config, find_data(config, write=False)).items():
                print(
                    f"{name}: {number:,.1f}"
                    if isinstance(number, float)
                    else f"{name}: {number}"
                )
            return 0
        return start(config)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
