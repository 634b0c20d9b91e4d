"""Writes a source as WebDataset tars with their index: the same source, the same bytes.

Samples are permuted over the shards by a seed, so that no shard is one class. Shards that an
earlier attempt finished are kept; ``cbdm_scale.data`` reads what this writes.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cbdm_scale.cluster.options import Log
from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.data.groups import class_groups
from cbdm_scale.data.index_files import TableWriter
from cbdm_scale.data.manifest import FORMAT_VERSION, Manifest
from cbdm_scale.diffusion.rng import permutation
from cbdm_scale.storage.folder import Storage
from data_prep.source import BadImage, Source
from data_prep.writing.draft import draft
from data_prep.writing.encode import Encoding
from data_prep.writing.left_out import LeftOut
from data_prep.writing.pool import Sees, run
from data_prep.writing.tars import Shard, ShardMaker, ShardRecord, parse_record

RECORDS = ".records"


def write_dataset(
    source: Source,
    out: str | Path,
    *,
    samples_per_shard: int,
    seed: int,
    log: Log,
    encoding: Encoding | None = None,
    workers: int | None = 0,
    bad_list: str | Path | None = None,
    reads: Path | None = None,
) -> Manifest:
    """Write the shards of every split, the two tables, and dataset.json last.

    Goes on with what an earlier attempt of the same source and options left in ``out``, a
    folder or a URL.
    ``bad_list`` is the folder for <name>.bad.txt; without it the reasons are only counted.
    ``reads`` is a path that workers on other nodes must see.
    """
    encoding = encoding or Encoding()
    target = Storage(str(out), "out")
    work = f"{RECORDS}/{_fingerprint(source, samples_per_shard, seed, encoding)}"
    shards = _plan_shards(source, samples_per_shard, seed)
    _start_or_continue(target, work, source, log)
    maker = ShardMaker(source=source, target=target, encoding=encoding, work=work)
    _make_shards(maker, shards, workers, reads, log)
    left_out = LeftOut(source)
    with tempfile.TemporaryDirectory(prefix="data_prep-") as scratch:
        with TableWriter(Path(scratch), len(shards)) as tables:
            for record in _records(maker, shards, left_out):
                tables.add(record.file, record.rows, record.num_bytes, record.sha256)
        left_out.judge(Storage(str(bad_list), "out") if bad_list else None, log)
        digest = hashlib.sha256((Path(scratch) / "shards.parquet").read_bytes()).hexdigest()
        for table in sorted(f for f in Path(scratch).rglob("*") if f.is_file()):
            with draft(target, table.relative_to(scratch).as_posix(), work) as path:
                shutil.copyfile(table, path)
    real = left_out.real_counts
    manifest = Manifest(
        name=source.name,
        class_names=source.class_names,
        image_size=source.image_size,
        channels=source.channels,
        counts={s: tuple(counts.tolist()) for s, counts in left_out.counts.items()},
        groups=class_groups(real or left_out.counts["train"].tolist()),
        shards_sha256=digest,
        source=source.made + encoding.words,
        real_counts=real,
    )
    if not target.child(work).files():
        raise ValueError(
            f"--out: another command is writing {source.name} to the same place with other "
            "options. Let one of them finish first."
        )
    target.write_bytes("dataset.json", manifest.to_json())
    target.remove(RECORDS)
    return manifest


def _fingerprint(source: Source, samples_per_shard: int, seed: int, encoding: Encoding) -> str:
    """Sixteen hex digits that change with whatever changes the bytes of a shard."""
    import PIL

    splits = {}
    for name, split in source.splits.items():
        assert len(set(split.keys)) == len(split.keys), f"{name} has a key twice"
        keys = hashlib.sha256()
        for key in split.keys:
            keys.update(key.encode() + b"\0")
        labels = np.ascontiguousarray(split.labels, "<i8").tobytes()
        splits[name] = [keys.hexdigest(), hashlib.sha256(labels).hexdigest()]
    image = [source.image_size, source.channels, encoding.format, encoding.quality]
    order = [samples_per_shard, seed, FORMAT_VERSION, PIL.__version__]
    described = [source.name, source.made, source.class_names, image, splits, order]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _plan_shards(source: Source, samples_per_shard: int, seed: int) -> list[Shard]:
    shards = []
    for split, samples in source.splits.items():
        n = len(samples.labels)
        order = permutation(seed, f"shards/{split}", n).numpy()
        for number, start in enumerate(range(0, n, samples_per_shard)):
            shards.append(Shard(split, number, order[start : start + samples_per_shard]))
    return shards


def _start_or_continue(target: Storage, work: str, source: Source, log: Log) -> None:
    """Make the folder of records, and clear away those of another source or other options."""
    there = target.child(RECORDS).files()
    if there and not all(f"{RECORDS}/{name}".startswith(f"{work}/") for name in there):
        log(
            "note: what an earlier attempt left is of another source or made with other "
            "options: starting over"
        )
        target.remove(RECORDS)
        for split in ("train", "eval", "test", *source.splits):
            target.remove(split)
    target.write_bytes(f"{work}/started", source.made.encode())


def _make_shards(
    maker: ShardMaker,
    shards: list[Shard],
    workers: int | None,
    reads: Path | None,
    log: Log,
) -> None:
    for split in maker.source.splits:
        log(f"writing {split}: {len(maker.source.splits[split].labels):,} images")
    due = [shard for shard in shards if not _is_finished(maker, shard)]
    if len(due) < len(shards):
        log(f"{len(shards) - len(due)} of {len(shards)} shards are there already: continuing")
    sees = Sees(maker.target, f"{maker.work}/started", reads)
    total, left = (sum(len(shard.rows) for shard in part) for part in (shards, due))
    with ProgressBar(total, "images", log, start=total - left) as progress:
        for count in run(maker, due, workers, progress.log, sees):
            progress.add(count)


def _is_finished(maker: ShardMaker, shard: Shard) -> bool:
    """Whether the shard is there, and what it left out still cannot be read."""
    try:
        record = parse_record(maker.target.read_bytes(shard.record_name(maker.work)))
        size = maker.target.size(shard.file) if record.num_samples else 0
    except (ValueError, KeyError, OSError):  # one is not there, or damaged
        return False
    if size != record.num_bytes:
        return False
    image = maker.source.splits[shard.split].image
    for bad in record.bad:
        try:
            image(bad.row)
        except BadImage:
            continue
        return False
    return True


def _records(
    maker: ShardMaker, shards: list[Shard], left_out: LeftOut
) -> Iterator[ShardRecord]:
    """The records of all shards that hold an image; a shard without one is removed."""
    for shard in shards:
        record = parse_record(maker.target.read_bytes(shard.record_name(maker.work)))
        left_out.add(record)
        if record.num_samples:
            yield record
