"""One shard: a WebDataset tar, and the record that says that it is finished.

WebDataset's writer makes the tar; nothing of the moment enters it (times, users, places).
"""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.index_files import index_schema
from data_prep.source import BadImage, Source
from data_prep.writing.encode import Encoding
from data_prep.writing.records import Bad, ShardRecord
from data_prep.writing.target import Target

TAR_BLOCK = 512


@dataclass(frozen=True)
class Shard:
    """What goes into one tar before it is known what can be read."""

    split: str
    number: int
    rows: NDArray[np.int64]
    """Positions in the split, in the order of the tar."""

    @property
    def file(self) -> str:
        """The tar's name within the data set."""
        return f"{self.split}/{self.number:06d}.tar"

    def record_name(self, work: str) -> str:
        """The name of its record within the target."""
        return f"{work}/{self.split}-{self.number:06d}.parquet"


@dataclass(frozen=True, kw_only=True)
class ShardMaker:
    """Makes the shards of one source, in any process."""

    source: Source
    target: Target
    encoding: Encoding
    work: str
    """The folder of records within the target."""

    def __call__(self, shard: Shard) -> int:
        """Write the tar, then its record; returns how many images it was to hold.

        Images that the source cannot give are left out. No tar is left where that is all.
        """
        with self.target.draft(shard.file, self.work) as path:
            record = self._write(shard, path)
        if not record.num_samples:
            self.target.remove(shard.file)
        self.target.write(shard.record_name(self.work), record.to_bytes())
        return len(shard.rows)

    def _write(self, shard: Shard, path: Path) -> ShardRecord:
        import pyarrow as pa
        from webdataset import TarWriter

        samples, suffix = self.source.splits[shard.split], self.encoding.suffix
        lines, bad = [], []
        plain = {"user": "", "group": "", "mode": 0o444, "mtime": 0, "encoder": False}
        with open(path, "wb") as tar, TarWriter(tar, **plain) as writer:
            for row in map(int, shard.rows):
                key, label = samples.keys[row], int(samples.labels[row])
                try:
                    image = self._encode(key, label, samples.image(row))
                except BadImage as error:
                    bad.append(Bad(row, key, label, str(error)))
                    continue
                # The members come sorted by suffix: cls before png, jpg and webp.
                writer.write({"__key__": key, "cls": str(label).encode(), suffix: image})
                padded = -(-len(image) // TAR_BLOCK) * TAR_BLOCK
                line = {"split": shard.split, "shard": shard.file, "key": key, "label": label}
                place = {"offset": writer.tarstream.offset - padded, "length": len(image)}
                lines.append(line | place | {"crc32": zlib.crc32(image)})
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return ShardRecord(
            file=shard.file,
            num_bytes=path.stat().st_size if lines else 0,
            sha256=digest,
            bad=tuple(bad),
            rows=pa.Table.from_pylist(lines, index_schema()),
        )

    def _encode(self, key: str, label: int, pixels: NDArray[np.uint8]) -> bytes:
        source = self.source
        expected = (source.image_size, source.image_size, source.channels)
        if pixels.shape != expected or pixels.dtype != np.uint8:
            raise ValueError(
                f"image {key} is {pixels.shape} {pixels.dtype}, not {expected} uint8"
            )
        if not 0 <= label < len(source.class_names):
            raise ValueError(
                f"image {key} has label {label}, outside 0..{len(source.class_names) - 1}"
            )
        return self.encoding.encode(pixels)
