"""Writes a source as WebDataset tars with their index: the same source, the same bytes.

Nothing of the moment enters the files (times, users, places). Samples are permuted over the
shards by a seed, so that no shard is one class. ``cbdm_scale.data`` reads what this writes.
"""

import hashlib
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.manifest import Manifest
from cbdm_scale.draws import permutation
from cbdm_scale.labels import class_groups
from data_prep.source import Source, Split

MAX_SAMPLES_PER_SHARD = 1_000_000
TAR_BLOCK = 512


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, C) uint8, C = 1 or 3, without loss."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def write_dataset(
    source: Source,
    folder: Path,
    *,
    samples_per_shard: int,
    seed: int,
    say: Callable[[str], None],
) -> Manifest:
    """Write the shards of every split, the two tables, and dataset.json last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not 1 <= samples_per_shard <= MAX_SAMPLES_PER_SHARD:
        raise ValueError(
            f"--samples-per-shard ({samples_per_shard}) must be 1 to {MAX_SAMPLES_PER_SHARD}. "
            "Try --samples-per-shard 1000."
        )
    k = len(source.class_names)
    shards: list[dict[str, Any]] = []
    with pq.ParquetWriter(
        folder / "index.parquet", _index_schema(), write_page_checksum=True
    ) as index:
        for split, samples in source.splits.items():
            n = len(samples.labels)
            say(f"writing {split}: {n:,} images")
            assert len(set(samples.keys)) == n, f"{split} has a key twice"
            order = permutation(seed, f"shards/{split}", n).numpy()
            (folder / split).mkdir()
            for start in range(0, n, samples_per_shard):
                rows = order[start : start + samples_per_shard]
                file = f"{split}/{start // samples_per_shard:06d}.tar"
                table = _write_shard(folder / file, file, source, samples, rows)
                index.write_table(table, row_group_size=len(rows))
                shards.append(_describe(folder / file, file, len(rows)))
    schema = pa.schema(
        {"file": pa.string(), "samples": pa.int64(), "bytes": pa.int64(), "sha256": pa.string()}
    )
    pq.write_table(pa.Table.from_pylist(shards, schema), folder / "shards.parquet")
    counts = {
        split: tuple(np.bincount(samples.labels, minlength=k).tolist())
        for split, samples in source.splits.items()
    }
    manifest = Manifest(
        name=source.name,
        class_names=source.class_names,
        image_size=source.image_size,
        channels=source.channels,
        counts=counts,
        groups=class_groups(counts["train"]),
        shards_sha256=_sha256(folder / "shards.parquet"),
        source=source.made,
    )
    (folder / "dataset.json").write_bytes(manifest.to_json())
    return manifest


def _index_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        {
            "split": pa.string(),
            "shard": pa.string(),
            "key": pa.string(),
            "label": pa.int64(),
            "offset": pa.int64(),
            "length": pa.int64(),
            "crc32": pa.uint32(),
        }
    )


def _write_shard(
    path: Path, file: str, source: Source, samples: Split, rows: NDArray[np.int64]
) -> Any:
    """One tar, and its rows of the index."""
    import pyarrow as pa
    from webdataset import TarWriter

    expected = (source.image_size, source.image_size, source.channels)
    lines = []
    with (
        open(path, "wb") as stream,
        TarWriter(stream, user="", group="", mtime=0, compress=False, encoder=False) as tar,
    ):
        for row in map(int, rows):
            key, label = samples.keys[row], int(samples.labels[row])
            pixels = samples.image(row)
            if pixels.shape != expected or pixels.dtype != np.uint8:
                raise ValueError(
                    f"image {key} is {pixels.shape} {pixels.dtype}, not {expected} uint8"
                )
            if not 0 <= label < len(source.class_names):
                raise ValueError(
                    f"image {key} has label {label}, outside 0..{len(source.class_names) - 1}"
                )
            png = encode_png(pixels)
            tar.write({"__key__": key, "cls": str(label).encode(), "png": png})
            padded = (
                -(-len(png) // TAR_BLOCK) * TAR_BLOCK
            )  # members go in order of their suffix
            line = {"split": file.split("/")[0], "shard": file, "key": key, "label": label}
            place = {"offset": tar.tarstream.offset - padded, "length": len(png)}
            lines.append(line | place | {"crc32": zlib.crc32(png)})
    return pa.Table.from_pylist(lines, _index_schema())


def _describe(path: Path, file: str, samples: int) -> dict[str, Any]:
    size = path.stat().st_size
    return {"file": file, "samples": samples, "bytes": size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
