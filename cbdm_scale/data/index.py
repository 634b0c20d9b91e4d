"""The sample index of one split, memory-mapped: where each image lies and what its label is.

index.parquet is read once per node and split, and kept as an Arrow IPC file whose columns are
mapped into memory, so that any number of processes share one copy in the page cache.
N = samples of the split, in the order of shards and, within one, of the tar.
"""

import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.manifest import (
    Manifest,
    open_folder,
    prep_command,
    read_manifest,
    read_shards,
)


class Index:
    """A compact view of one split; pickles as the path of its cached file.

    num_samples  N
    labels       (N,) int64
    shard_of     (N,) int32, positions in ``shard_sizes``
    offsets      (N,) int64, first byte of the image in its tar
    lengths      (N,) int64, bytes of the image
    crc32        (N,) uint32 of the image's bytes
    shard_sizes  (number of shards,) int64, samples per shard
    """

    def __init__(self, path: str) -> None:
        import pyarrow as pa

        self.path = path
        self.split = Path(path).stem.rpartition("-")[2]
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        source = pa.BufferReader(pa.py_buffer(mapped))  # pa.memory_map would start threads
        one_thread = pa.ipc.IpcReadOptions(use_threads=False)
        table = pa.ipc.open_file(source, options=one_thread).get_batch(0)
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

    def __reduce__(self) -> tuple[type["Index"], tuple[str]]:
        return Index, (self.path,)

    def key(self, row: int) -> str:
        return str(self._keys[int(row)].as_py())

    def keys(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(self._keys.take(rows).to_pylist())

    def shard_name(self, shard: int) -> str:
        """The shard's file within the data set's folder, such as "train/000000.tar"."""
        return self._shard_names[shard]


def cache_folder() -> Path:
    """CBDM_SCALE_CACHE, or a folder of this user among the node's temporary files."""
    chosen = os.environ.get("CBDM_SCALE_CACHE")
    folder = Path(chosen or Path(tempfile.gettempdir()) / f"cbdm_scale-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise ValueError(f"CBDM_SCALE_CACHE ({folder}) cannot be used: {error}") from error
    if not chosen and owner != os.getuid():
        raise ValueError(
            f"the cache folder {folder} belongs to somebody else. Set CBDM_SCALE_CACHE."
        )
    return folder


def open_index(root: str, name: str, split: str) -> Index:
    """The index of one split: from this node's cache, or made into it."""
    manifest = read_manifest(root, name)
    if split not in manifest.counts:
        raise ValueError(
            f"data set {manifest.name} has no split {split}; it has "
            f"{', '.join(manifest.counts)}"
        )
    file = f"{manifest.name}-{manifest.fingerprint}-{split}.arrow"
    path = cache_folder() / file
    if path.exists():
        try:
            return Index(str(path))
        except (ValueError, KeyError, TypeError, OSError):  # a node that lost power, say
            path.unlink(missing_ok=True)
    with one_at_a_time(path):
        if not path.exists():
            _write_cache(root, manifest, split, path)
    return Index(str(path))


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process of this node make what ``path`` stands for while the others wait."""
    import fcntl

    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_cache(root: str, manifest: Manifest, split: str, path: Path) -> None:
    import pyarrow as pa

    fs, folder = open_folder(root, manifest.name)
    _, shards = read_shards(fs, folder)
    chosen = [i for i, shard in enumerate(shards) if shard["file"].startswith(split + "/")]
    table = _read_row_groups(fs, folder, shards, chosen)
    counts = np.bincount(table["label"].to_numpy(), minlength=manifest.num_classes)
    if tuple(counts) != manifest.counts[split]:
        raise ValueError(
            f"{folder}/index.parquet counts {split} images per class {counts.tolist()}, "
            f"dataset.json {list(manifest.counts[split])}. Make the data set again: "
            f"{prep_command(root, manifest.name)} --force-overwrite"
        )
    names = [(shards[i]["file"], shards[i]["samples"]) for i in chosen]
    schema = table.schema.with_metadata({b"shards": json.dumps(names).encode()})
    batch = table.combine_chunks().to_batches()[0]
    batch = pa.RecordBatch.from_arrays(batch.columns, schema=schema)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(handle)
    try:
        with pa.OSFile(partial, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(batch)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _read_row_groups(
    fs: Any, folder: str, shards: list[dict[str, Any]], chosen: list[int]
) -> Any:
    """Key, label, shard (a position in ``chosen``), offset, length and crc32 of the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "key": pa.large_string(),
        "label": pa.int64(),
        "offset": pa.int64(),
        "length": pa.int64(),
        "crc32": pa.uint32(),
    }
    parts = []
    raw = pa.BufferReader(fs.cat_file(f"{folder}/index.parquet"))  # see read_shards
    with pq.ParquetFile(raw, page_checksum_verification=True) as index:
        for position, i in enumerate(chosen):
            try:
                rows = index.read_row_group(i, columns=["shard", *types], use_threads=False)
            except (KeyError, OSError, pa.ArrowException) as error:
                raise ValueError(
                    f"{folder}/index.parquet is damaged ({error}). Copy it again, or make the "
                    f"data set again with {prep_command('ROOT', Path(folder).name)}"
                ) from error
            if set(rows["shard"].to_pylist()) != {shards[i]["file"]}:
                raise ValueError(
                    f"{folder}/index.parquet: row group {i} is not {shards[i]['file']}"
                )
            columns = {c: rows[c].cast(t) for c, t in types.items()}
            columns["shard"] = pa.array(np.full(rows.num_rows, position, np.int32))
            parts.append(pa.table(columns))
    return pa.concat_tables(parts)
