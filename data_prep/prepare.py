"""From a published folder to a finished data set, which appears whole or not at all."""

import hashlib
import shlex
from pathlib import Path

import numpy as np

from cbdm_scale.cluster.options import Log, to_stdout
from cbdm_scale.data.groups import GROUPS
from cbdm_scale.data.manifest import PUBLISHED, Manifest, parse_manifest, read_manifest
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import prog_of, shorten
from data_prep.options import Options
from data_prep.readers import name_of, read_source
from data_prep.source import Source
from data_prep.writing.encode import Encoding
from data_prep.writing.fit import CLASSIFIER, fit_classifier
from data_prep.writing.shards import RECORDS, write_dataset
from data_prep.writing.staging import put_in_place, staging

OURS = {"dataset.json", "index.parquet", "shards.parquet", CLASSIFIER}
OURS |= {"train", "eval", "val", "test"}
FEW_IMAGES = 10_000
"""Training images of a user's own, below which a paper's network is no first run."""
WAY_OUT = (
    "Replace it with --force-overwrite, or give another --out, or images of your own another "
    "--name."
)


def prepare(
    dataset: str, options: Options, *, only_if_missing: bool = False, log: Log = to_stdout
) -> Manifest:
    """Read, write, and fit the feature classifier; say what came out."""
    Encoding(format=options.format, quality=options.quality)
    is_remote = "://" in options.out
    root = options.out.rstrip("/") if is_remote else str(Path(options.out).expanduser())
    if not is_remote:
        _check_root(Path(root), options)
    if only_if_missing and _lacks_nothing(root, name_of(dataset, options), options):
        return read_manifest(root, name_of(dataset, options))
    source = read_source(dataset, options)
    for note in source.notes:
        log(f"note: {note}")
    target = Storage(f"{root}/{source.name}", "out")
    if is_remote:
        manifest = _finished(target, source, options)
        written = manifest is None
        manifest = manifest or _write(source, target.url, root, options, log)
    else:
        folder = Path(target.url)
        _check_folder(folder, options)
        if not (only_if_missing or options.force_overwrite):
            _refuse_other(folder, source, options)
        with staging(folder, wait=only_if_missing, log=log) as hidden:
            if only_if_missing and (folder / "dataset.json").exists():
                manifest = read_manifest(root, source.name)
                lacking = options.classifier and not target.exists(CLASSIFIER)
                if lacking and _evaluates(manifest, source):
                    fit_classifier(source, target, log)
                return manifest
            manifest = _write(source, str(hidden), root, options, log)
            written = put_in_place(hidden, folder, options.force_overwrite)
    if options.classifier and not target.exists(CLASSIFIER):
        fit_classifier(source, target, log)
    source.done()
    _log_outcome(manifest, target.url, written, log)
    if not only_if_missing:
        has_classifier = target.exists(CLASSIFIER)
        log("with --dry-run the next command says how long it takes on this machine")
        log(f"next: {train_command(manifest, root, has_classifier=has_classifier)}")
    return manifest


def _evaluates(manifest: Manifest, source: Source) -> bool:
    """Whether a data set's eval images are a source's: as many of each class, in one size."""
    labels = source.splits["eval"].labels
    counts = np.bincount(labels, minlength=len(source.class_names)).tolist()
    return (
        (manifest.class_names, manifest.image_size, manifest.channels)
        == (source.class_names, source.image_size, source.channels)
    ) and manifest.counts.get("eval") == tuple(counts)


def train_command(manifest: Manifest, root: str, *, has_classifier: bool = True) -> str:
    """What trains on a data set, by the preset for this machine and for so many images.

    Without the feature classifier, without FID.
    """
    import torch

    words = [*prog_of("train").split(), "--dataset", manifest.name]
    few = manifest.name not in PUBLISHED and manifest.num_images("train") < FEW_IMAGES
    if manifest.name != "digits_lt" and (few or not torch.cuda.is_available()):
        words += ["--preset", "small"]
    words += [] if has_classifier else ["--eval.extractor", "none"]
    return shlex.join([*words, "--data.root", root])


def prepare_digits(root: str, *, classifier: bool = True) -> None:
    """Make <root>/digits_lt, or its classifier, where it is missing. What is there stays as it
    is, whatever draw of the tail it has; several processes may do so at once.

    On one node they take turns, so that the work is done once; between nodes the first to
    finish wins. A root that is a URL is left alone: reading from it names the command. One that
    is not there is said: it may be a slip.
    """
    from cbdm_scale.data.cache import cache_folder
    from cbdm_scale.data.index import one_at_a_time

    if "://" in str(root):
        return
    path = Path(root).expanduser().resolve()
    if not path.exists():
        print(f"data.root ({root}) is not there: it is made, and digits_lt in it", flush=True)
    turn = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    with one_at_a_time(cache_folder() / f"prepare-{turn}"):
        options = Options(out=str(path), classifier=classifier, workers=0)
        prepare("digits-lt", options, only_if_missing=True)


def _lacks_nothing(root: str, name: str, options: Options) -> bool:
    """Whether a data set is there, with its classifier where one is wanted."""
    folder = Path(root) / name
    due = options.classifier and not (folder / CLASSIFIER).exists()
    return (folder / "dataset.json").exists() and not due


def _write(source: Source, out: str, root: str, options: Options, log: Log) -> Manifest:
    return write_dataset(
        source,
        out,
        samples_per_shard=options.samples_per_shard,
        seed=options.seed,
        log=log,
        encoding=Encoding(format=options.format, quality=options.quality),
        workers=options.workers,
        bad_list=root,
        reads=_local_source(options),
    )


def _local_source(options: Options) -> Path | None:
    """Where --source is on this machine; None for a URL, and for readers without one."""
    if not options.source or "://" in options.source:
        return None
    return Path(options.source).expanduser().resolve()


def _check_root(root: Path, options: Options) -> None:
    """ValueError for a path that is, or leads through, a file."""
    if there := next((path for path in (root, *root.parents) if path.is_file()), None):
        raise ValueError(
            f"--out ({options.out}): {there} is a file. Give a folder, which need not be there "
            "yet: the data set goes into a folder of its own in it."
        )


def _check_folder(folder: Path, options: Options) -> None:
    """Refuse early what would be refused after the work."""
    if not folder.exists():
        return
    source = _local_source(options)
    inside = source is not None and source.is_relative_to(folder.resolve())
    names = {f.name for f in folder.iterdir()} if folder.is_dir() else {"a file"}
    _check_names(str(folder), names | ({"--source"} if inside else set()), options)


def _refuse_other(folder: Path, source: Source, options: Options) -> None:
    """ValueError, before the work, if a data set is there that was made otherwise."""
    try:
        there = parse_manifest((folder / "dataset.json").read_bytes()).source
    except (OSError, ValueError):
        return  # none, or one that is found to be damaged when it is compared
    now = source.made + Encoding(format=options.format, quality=options.quality).words
    if there != now:
        raise ValueError(
            f"--out ({options.out}): {folder} is there already with other content ({there}; "
            f"now: {now}). {WAY_OUT}"
        )


def _check_names(where: str, names: set[str], options: Options) -> None:
    """ValueError if what is there, by its names in the folder, is not to be replaced."""
    foreign = names - OURS if "dataset.json" not in names else names & {"--source"}
    if foreign:
        raise ValueError(
            f"--out ({options.out}): {where} is there and is not a data set of ours (it holds "
            f"{shorten(sorted(foreign))}). Give another --out."
        )
    if "dataset.json" not in names and not options.force_overwrite:
        raise ValueError(
            f"--out ({options.out}): {where} is there without a dataset.json, so it is "
            f"unfinished. {WAY_OUT}"
        )


def _finished(target: Storage, source: Source, options: Options) -> Manifest | None:
    """The manifest of the same data set if a store has it; clears what may be replaced."""
    names = target.files()
    if not names or (f"{RECORDS}/" in names[0] and "dataset.json" not in names):
        return None  # nothing, or an attempt that may be continued
    _check_names(target.url, {name.split("/")[0] for name in names}, options)
    if not options.force_overwrite:
        where = f"--out ({options.out}): {target.url} is there"
        encoding = Encoding(format=options.format, quality=options.quality)
        try:
            old = parse_manifest(target.read_bytes("dataset.json"))
        except ValueError as error:
            raise ValueError(f"{where} and its dataset.json {error}. {WAY_OUT}") from None
        if old.source == source.made + encoding.words:
            return old
        raise ValueError(f"{where} already, made of {old.source}. {WAY_OUT}")
    target.remove("dataset.json")  # first: without it the rest counts as unfinished
    target.remove("")
    return None


def _log_outcome(manifest: Manifest, folder: str, written: bool, log: Log) -> None:
    images = ", ".join(f"{manifest.num_images(s):,} {s}" for s in manifest.counts)
    groups = ", ".join(f"{manifest.groups.count(g)} {g}" for g in GROUPS)
    state = "written" if written else "already there with the same content, left as it is"
    size = f"{manifest.image_size}x{manifest.image_size}x{manifest.channels}"
    log(f"{folder}: {state} (fingerprint {manifest.fingerprint})")
    log(f"  images   {images}; {size}")
    log(f"  classes  {manifest.num_classes}: {groups}")
