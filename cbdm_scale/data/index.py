"""The sample index of one split, memory-mapped: where each image lies and what its label is.

index.parquet is read once per node and split, and kept as an Arrow IPC file whose columns are
mapped into memory, so that any number of processes share one copy in the page cache. One in
parts (very many shards) is read and kept part by part: ``partitioned.py``.
N = samples of the split, in the order of shards and, within one, of the tar.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.arrow_files import map_batch, write_batch
from cbdm_scale.data.cache import cache_folder
from cbdm_scale.data.index_files import (
    in_split,
    index_columns,
    index_types,
    is_partitioned,
    parse_shards,
)
from cbdm_scale.data.manifest import (
    Manifest,
    open_folder,
    prep_command,
    read_manifest,
)
from cbdm_scale.data.partitioned_index import PartitionedIndex
from cbdm_scale.storage.wording import clip, shorten


class MappedIndex:
    """The whole index of a split in one mapped file, as arrays; pickles as its path.

    num_samples is N, shard_sizes (number of shards,) samples per shard. By row, (N,) each:
    labels; shard_of, the positions in shard_sizes; offsets, the first byte of the image in its
    tar; lengths, its bytes, and their crc32.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.split = Path(path).stem.rpartition("-")[2]
        table = map_batch(path)
        shards = json.loads(table.schema.metadata[b"shards"])
        self._shard_names: list[str] = [file for file, _ in shards]
        self.shard_sizes: NDArray[np.int64] = np.array([n for _, n in shards], np.int64)
        self.num_samples: int = table.num_rows
        self._keys = table["key"]
        self.labels: NDArray[np.int64] = table["label"].to_numpy()
        self.shard_of: NDArray[np.int32] = table["shard"].to_numpy()
        self.offsets: NDArray[np.int64] = table["offset"].to_numpy()
        self.lengths: NDArray[np.int64] = table["length"].to_numpy()
        self.crc32: NDArray[np.uint32] = table["crc32"].to_numpy()

    def __reduce__(self) -> tuple[type["MappedIndex"], tuple[str]]:
        return MappedIndex, (self.path,)

    def key(self, row: int) -> str:
        """The name of a sample."""
        return str(self._keys[int(row)].as_py())

    def keys(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """The names of the samples at rows (n,)."""
        return tuple(self._keys.take(rows).to_pylist())

    def shard_name(self, shard: int) -> str:
        """The shard's file within the data set's folder, such as "train/000000.tar"."""
        return self._shard_names[shard]


Index = MappedIndex | PartitionedIndex
"""Both are asked alike: columns take a row or an array of rows."""


def open_index(root: str, name: str, split: str) -> Index:
    """The index of one split: from this node's cache, or made into it."""
    manifest = read_manifest(root, name)
    if split not in manifest.counts:
        raise ValueError(
            f"data set {manifest.name} has no split {split}; it has "
            f"{shorten(list(manifest.counts))}"
        )
    path = cache_folder() / f"{manifest.name}-{manifest.fingerprint}-{split}.arrow"
    found = _open_cached(root, manifest, split, path)
    if found is None:
        with one_at_a_time(path):
            found = _open_cached(root, manifest, split, path)
            if found is None:
                _write_cache(root, manifest, split, path)
                found = _open_cached(root, manifest, split, path)
    assert found is not None, f"{path} vanished"
    return found


def _open_cached(root: str, manifest: Manifest, split: str, path: Path) -> Index | None:
    """What this node holds of an index, if it is whole."""
    partitioned = path.with_suffix(".shards")
    for file in (path, partitioned):
        try:
            if file == partitioned:
                return PartitionedIndex(root, manifest.name, split, str(partitioned))
            return MappedIndex(str(path))
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, OSError):  # a node that lost power, say
            file.unlink(missing_ok=True)
    return None


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process of this node make what ``path`` stands for while the others wait."""
    import fcntl

    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_cache(root: str, manifest: Manifest, split: str, path: Path) -> None:
    fs, folder = open_folder(root, manifest.name)
    all_shards = parse_shards(fs.cat_file(f"{folder}/shards.parquet"))
    if is_partitioned(all_shards):
        write_batch(path.with_suffix(".shards"), in_split(all_shards, split))
        return
    shards = all_shards.to_pylist()
    chosen = [i for i, shard in enumerate(shards) if shard["file"].startswith(split + "/")]
    table = _read_row_groups(fs, folder, shards, chosen)
    counts = np.bincount(table["label"].to_numpy(), minlength=manifest.num_classes)
    pairs = zip_longest(counts.tolist(), manifest.counts[split], fillvalue=0)
    if wrong := [(c, *pair) for c, pair in enumerate(pairs) if pair[0] != pair[1]]:
        c, here, said = wrong[0]
        raise ValueError(
            f"{folder}/index.parquet counts {here:,} {split} images of class {c}, "
            f"dataset.json {said:,}. Make the data set again: "
            f"{prep_command(root, manifest.name)} --force-overwrite"
        )
    names = [(shards[i]["file"], shards[i]["samples"]) for i in chosen]
    write_batch(path, table.replace_schema_metadata({b"shards": json.dumps(names).encode()}))


def _read_row_groups(
    fs: Any, folder: str, shards: list[dict[str, Any]], chosen: list[int]
) -> Any:
    """Key, label, shard (a position in ``chosen``), offset, length and crc32 of the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted, parts = ["shard", *index_types()], []
    raw = pa.BufferReader(fs.cat_file(f"{folder}/index.parquet"))  # see parse_shards
    with pq.ParquetFile(raw, page_checksum_verification=True) as index:
        for position, i in enumerate(chosen):
            try:
                rows = index.read_row_group(i, columns=wanted, use_threads=False)
                columns = index_columns(rows)
            except (KeyError, ValueError, OSError) as error:
                raise ValueError(
                    f"{folder}/index.parquet is damaged ({clip(error)}). Copy it again, or "
                    f"make the data set again with {prep_command('ROOT', Path(folder).name)}"
                ) from error
            if set(rows["shard"].to_pylist()) != {shards[i]["file"]}:
                raise ValueError(
                    f"{folder}/index.parquet: row group {i} is not {shards[i]['file']}"
                )
            columns["shard"] = pa.array(np.full(rows.num_rows, position, np.int32))
            parts.append(pa.table(columns))
    return pa.concat_tables(parts)
