"""From a published folder to a finished data set, which appears whole or not at all."""

import filecmp
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cbdm_scale.data.manifest import Manifest, canonical_name, parse_manifest, read_manifest
from cbdm_scale.labels import GROUPS
from data_prep.options import Options
from data_prep.readers import read_source
from data_prep.shards import write_dataset
from data_prep.source import Source

CLASSIFIER = "classifier.safetensors"
OURS = {"dataset.json", "index.parquet", "shards.parquet", "train", "eval", "test", CLASSIFIER}

Say = Callable[[str], None]


def prepare(
    dataset: str, options: Options, *, only_if_missing: bool = False, say: Say = print
) -> Manifest:
    """Read, write, and fit the feature classifier; say what came out."""
    if "://" in options.out:
        raise ValueError(
            f"--out ({options.out}) must be a local folder. Write there, then copy the folder "
            "with dataset.json last."
        )
    out = Path(options.out).expanduser()
    folder = out / canonical_name(dataset)
    classifier_is_due = options.classifier and not (folder / CLASSIFIER).exists()
    if only_if_missing and (folder / "dataset.json").exists() and not classifier_is_due:
        return read_manifest(str(out), folder.name)
    _check_target(folder, options)
    source = read_source(dataset, options)
    for note in source.notes:
        say(f"note: {note}")
    with _staging(folder) as staging:
        manifest = write_dataset(
            source,
            staging,
            samples_per_shard=options.samples_per_shard,
            seed=options.seed,
            say=say,
        )
        written = _put_in_place(staging, folder, options)
    if options.classifier and not (folder / CLASSIFIER).exists():
        say(f"fitting the feature classifier on {manifest.num_images('eval'):,} images")
        _fit_classifier(source, folder)
    _say_outcome(manifest, folder, written, say)
    return manifest


def _check_target(folder: Path, options: Options) -> None:
    """Refuse early what would be refused after the work."""
    if not folder.exists():
        return
    source = Path(options.source).expanduser().resolve() if options.source else None
    inside = source is not None and source.is_relative_to(folder.resolve())
    names = {f.name for f in folder.iterdir()} if folder.is_dir() else {"a file"}
    foreign = "" if "dataset.json" in names else ", ".join(sorted(names - OURS)[:3])
    if inside or foreign:
        raise ValueError(
            f"--out ({options.out}): {folder} is there and is not a data set of ours "
            f"(it holds {'--source' if inside else foreign}). Give another --out."
        )
    if not (folder / "dataset.json").exists() and not options.force_overwrite:
        raise ValueError(
            f"--out ({options.out}): {folder} is there without a dataset.json, so it is "
            "unfinished. Replace it with --force-overwrite, or give another --out."
        )


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the final one, gone at the end whatever happens."""
    prefix = f".{folder.name}.{socket.gethostname()}."
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{prefix}*"):  # by runs of this machine that were killed
        if not _is_alive(left.name.removeprefix(prefix).split(".")[0]):
            shutil.rmtree(left, ignore_errors=True)
    staging = folder.parent / f"{prefix}{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        return True
    return True


def _put_in_place(staging: Path, folder: Path, options: Options) -> bool:
    """Rename the new folder to its name; False if the same content is there already."""
    try:
        staging.rename(folder)
        return True
    except OSError:  # it is there: from before, or another process was faster
        if not folder.is_dir():
            raise
    files = [str(f.relative_to(staging)) for f in staging.rglob("*") if f.is_file()]
    _, differ, lacking = filecmp.cmpfiles(staging, folder, files, shallow=False)
    if not differ and not lacking:
        return False
    if not options.force_overwrite:
        raise ValueError(
            f"--out ({options.out}): {folder} is there already {_difference(staging, folder)}. "
            "Replace it with --force-overwrite, or give another --out."
        )
    old = staging.with_name(staging.name + ".old")
    folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _difference(staging: Path, folder: Path) -> str:
    try:
        old, new = (
            parse_manifest((f / "dataset.json").read_bytes()) for f in (folder, staging)
        )
    except (OSError, ValueError):
        return "and its dataset.json is damaged"
    if old == new:
        return "and is damaged (its files are not what its dataset.json says)"
    if old.source == new.source:
        return "with other content from the same kind of source"
    return f"with other content ({old.source}; now: {new.source})"


def _fit_classifier(source: Source, folder: Path) -> None:
    from data_prep.classifier import write_classifier

    split, num_classes = source.splits["eval"], len(source.class_names)
    path = str(folder / CLASSIFIER)
    write_classifier(path, split.pixels(), split.labels, num_classes, flip=source.mirrors)


def _say_outcome(manifest: Manifest, folder: Path, written: bool, say: Say) -> None:
    images = ", ".join(f"{manifest.num_images(s):,} {s}" for s in manifest.counts)
    groups = ", ".join(f"{manifest.groups.count(g)} {g}" for g in GROUPS)
    state = "written" if written else "already there with the same content, left as it is"
    size = f"{manifest.image_size}x{manifest.image_size}x{manifest.channels}"
    say(f"{folder}: {state} (fingerprint {manifest.fingerprint})")
    say(f"  images   {images}; {size}")
    say(f"  classes  {manifest.num_classes}: {groups}")
    say(
        f"next: python -m cbdm_scale.train --dataset {manifest.name} "
        f"--data.root {folder.parent}"
    )
