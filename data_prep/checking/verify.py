"""cbdm verify ROOT[/NAME]: every byte of a data set against its dataset.json.

Prints all that is wrong, not the first of it; the exit status is 1 if anything is.
K = number of classes.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from cbdm_scale.cluster.options import Log, to_stdout
from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.data.groups import class_groups
from cbdm_scale.data.index_files import SMALLEST_TELLING_SHARD, mixing_warning, part_name
from cbdm_scale.data.manifest import (
    Manifest,
    dataset_folder,
    open_folder,
    parse_manifest,
    read_shards,
)
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import Store, StoreError
from data_prep.checking.check_shard import Expected, Findings, ShardCheck, num_index_groups
from data_prep.checking.sets import find_sets
from data_prep.options import VerifyOptions
from data_prep.writing.fit import CLASSIFIER
from data_prep.writing.pool import Sees, run


@dataclass
class Verdict:
    name: str
    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    summary: str = ""


def verify(root: str, name: str, *, workers: int | None = 0, log: Log = to_stdout) -> Verdict:
    """Read a whole data set; what is wrong with it, in the order of its shards."""
    verdict = Verdict(name)
    root = Storage(root).url  # workers have a folder of their own
    store, folder = open_folder(root, name)
    try:
        text = store.cat_file(f"{folder}/dataset.json")
        manifest = parse_manifest(text)
    except FileNotFoundError:
        verdict.wrong.append("dataset.json: is missing, so the data set is unfinished")
        return verdict
    except ValueError as error:
        verdict.wrong.append(f"dataset.json: {error}")
        return verdict
    if manifest.name != name:
        verdict.wrong.append(f"dataset.json: is of {manifest.name}, in a folder {name}")
    if json.loads(text).get("totals") != manifest.to_dict()["totals"]:
        verdict.wrong.append("dataset.json: its totals are not the sums of its counts")
    expected = _expected(root, name, store, folder, manifest, verdict)
    check = ShardCheck(
        root=root,
        name=name,
        channels=manifest.channels,
        image_size=manifest.image_size,
        num_classes=manifest.num_classes,
    )
    found: dict[str, Findings] = {}
    sees = Sees(Storage(dataset_folder(root, name)), "dataset.json")
    with ProgressBar(len(expected), f"shards of {name}", log) as progress:
        for findings in run(check, expected, workers, progress.log, sees):
            found[findings.file] = findings
            progress.add(1)
    in_order = [found[e.file] for e in expected]
    for findings in in_order:
        verdict.wrong += findings.wrong
    _judge_counts(manifest, in_order, verdict)
    _judge_keys(in_order, verdict)
    _judge_mixing(in_order, verdict)
    _judge_classifier(store, folder, manifest, verdict)
    images, size = sum(len(f.keys) for f in in_order), sum(f.num_bytes for f in in_order)
    verdict.summary = f"{len(in_order)} shards, {images:,} images, {size / 1e6:,.1f} MB"
    return verdict


def _expected(
    root: str, name: str, store: Store, folder: str, manifest: Manifest, verdict: Verdict
) -> list[Expected]:
    """What the tables say of every shard; without them, the tars that are there."""
    listed = store.find(folder) if store.has_listings else {}
    there = {str(path).removeprefix(folder + "/") for path in listed}
    tars = sorted(f for f in there if f.endswith(".tar") and not f.startswith("."))
    try:
        raw, shards = read_shards(store, folder)
    except FileNotFoundError:
        verdict.wrong.append("shards.parquet: is missing")
        return [Expected(file) for file in tars]
    except StoreError:
        raise
    except (ValueError, OSError) as error:
        verdict.wrong.append(f"shards.parquet: cannot be read ({error})")
        return [Expected(file) for file in tars]
    if hashlib.sha256(raw).hexdigest() != manifest.shards_sha256:
        verdict.wrong.append("shards.parquet: has another sha256 than dataset.json says")
    names = {shard["file"] for shard in shards}
    verdict.wrong += [f"{f}: is not in shards.parquet" for f in tars if f not in names]
    files = [part_name(s["part"]) if "part" in s else "index.parquet" for s in shards]
    counts = Counter(files) or Counter({"index.parquet": 0})
    groups = {f: _count_groups(root, name, f, n, verdict) for f, n in counts.items()}
    seen: Counter[str] = Counter()
    expected = []
    for shard, file in zip(shards, files, strict=True):
        group = seen[file] if seen[file] < groups[file] else None
        seen[file] += 1
        sizes = shard["samples"], shard["bytes"], shard["sha256"]
        expected.append(Expected(shard["file"], *sizes, group, file))
    return expected


def _count_groups(root: str, name: str, file: str, num_shards: int, verdict: Verdict) -> int:
    """Row groups of a file of the index, 0 if it cannot be read."""
    try:
        num_groups = num_index_groups(root, name, file)
    except FileNotFoundError:
        verdict.wrong.append(f"{file}: is missing")
        return 0
    except StoreError:
        raise
    except (ValueError, OSError) as error:  # pyarrow's errors are ValueErrors
        verdict.wrong.append(f"{file}: cannot be read ({error})")
        return 0
    if num_groups != num_shards:
        verdict.wrong.append(f"{file}: has {num_groups} row groups for {num_shards} shards")
    return num_groups


def _judge_counts(manifest: Manifest, found: list[Findings], verdict: Verdict) -> None:
    k = manifest.num_classes
    for split in sorted({f.file.split("/")[0] for f in found} | set(manifest.counts)):
        counts = np.zeros(k, np.int64)
        for findings in found:
            if findings.file.startswith(f"{split}/"):
                counts += np.bincount(findings.labels, minlength=k)
        if split not in manifest.counts:
            verdict.wrong.append(f"dataset.json: has no split {split}, the shards do")
            continue
        for c in map(int, np.flatnonzero(counts != manifest.counts[split])):
            verdict.wrong.append(
                f"dataset.json: class {manifest.class_names[c]} has "
                f"{manifest.counts[split][c]:,} {split} images, the tars {counts[c]:,}"
            )
    by_counts = class_groups(manifest.real_counts or manifest.counts["train"])
    for c, group in enumerate(by_counts):
        if manifest.groups[c] != group:
            verdict.wrong.append(
                f"dataset.json: class {manifest.class_names[c]} is {manifest.groups[c]}, by "
                f"its training images {group}"
            )


def _judge_keys(found: list[Findings], verdict: Verdict) -> None:
    for split in sorted({f.file.split("/")[0] for f in found}):
        of_split = [f for f in found if f.file.startswith(f"{split}/")]
        keys = np.concatenate([f.keys for f in of_split])
        values, counts = np.unique(keys, return_counts=True)
        twice = values[counts > 1]
        if len(twice):
            files = [f.file for f in of_split if np.isin(f.keys, twice).any()]
            verdict.wrong.append(
                f"{split}: {len(twice)} keys stand more than once, in {', '.join(files)}"
            )


def _judge_mixing(found: list[Findings], verdict: Verdict) -> None:
    pure = [
        f.file
        for f in found
        if len(f.labels) >= SMALLEST_TELLING_SHARD and len(np.unique(f.labels)) == 1
    ]
    if pure:
        verdict.warnings.append(mixing_warning(pure))


def _judge_classifier(store: Store, folder: str, manifest: Manifest, verdict: Verdict) -> None:
    from cbdm_scale.metrics.classifier import class_places, load_classifier

    try:
        data = store.cat_file(f"{folder}/{CLASSIFIER}")
        net = load_classifier(data, CLASSIFIER)
    except FileNotFoundError:
        verdict.warnings.append(f"{CLASSIFIER} is not there: FID then needs Inception")
        return
    except ValueError as error:
        verdict.wrong.append(f"{CLASSIFIER}: {error}")
        return
    found = net.image_channels, net.image_size, net.num_classes
    needed = manifest.channels, manifest.image_size, manifest.num_classes
    if found != needed:
        verdict.wrong.append(
            f"{CLASSIFIER}: is for {found[0]} x {found[1]} x {found[1]} and {found[2]} "
            f"classes, the data set has {needed[0]} x {needed[1]} x {needed[1]} and {needed[2]}"
        )
        return
    try:
        class_places(data, manifest.class_names, CLASSIFIER)
    except ValueError as error:
        verdict.wrong.append(str(error))


def print_verdicts(options: VerifyOptions) -> int:
    """Everything that is wrong with the data sets; the exit status is 1 if anything is."""
    num_wrong = 0
    root, names = find_sets(options.where)
    for name in names:
        verdict = verify(root, name, workers=options.workers)
        for line in verdict.wrong:
            print(f"wrong: {name}/{line}")
        for line in verdict.warnings:
            print(f"warning: {name}: {line}")
        state = f"{len(verdict.wrong)} things are wrong" if verdict.wrong else "fine"
        print(f"{name}: {state}" + (f"; {verdict.summary}" if verdict.summary else ""))
        num_wrong += len(verdict.wrong)
    return 1 if num_wrong else 0
