"""One shard: a WebDataset tar, and the record that says that it is finished.

WebDataset's writer makes the tar; nothing of the moment enters it (times, users, places).
The record is written after its tar and whole or not at all. It is a Parquet file: the shard's
rows of the index, and the rest as JSON among the schema's metadata.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.index_files import index_schema
from cbdm_scale.storage.folder import Storage
from data_prep.source import BadImage, Source
from data_prep.writing.draft import draft
from data_prep.writing.encode import Encoding

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


@dataclass(frozen=True)
class Bad:
    """A sample that the source could not give."""

    row: int
    """Its position in the split."""
    key: str
    label: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    file: str
    """Within the data set, such as "train/000000.tar"."""
    num_bytes: int
    sha256: str
    bad: tuple[Bad, ...]
    rows: Any
    """The shard's rows of the index, a pyarrow table."""

    @property
    def split(self) -> str:
        """Of the data set, such as train."""
        return self.file.split("/")[0]

    @property
    def num_samples(self) -> int:
        """Images in the shard."""
        return int(self.rows.num_rows)

    def to_bytes(self) -> bytes:
        """The record as a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        bad = [(b.row, b.key, b.label, b.reason) for b in self.bad]
        text = {"file": self.file, "bytes": self.num_bytes, "sha256": self.sha256, "bad": bad}
        sink = pa.BufferOutputStream()
        table = self.rows.replace_schema_metadata({"shard": json.dumps(text)})
        pq.write_table(table, sink, write_page_checksum=True)
        return bytes(sink.getvalue())


def parse_record(raw: bytes) -> ShardRecord:
    """The inverse of ``ShardRecord.to_bytes``; ValueError or OSError where it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True) as file:
        table = file.read(use_threads=False)
    text = json.loads(table.schema.metadata[b"shard"])
    return ShardRecord(
        file=str(text["file"]),
        num_bytes=int(text["bytes"]),
        sha256=str(text["sha256"]),
        bad=tuple(Bad(*b) for b in text["bad"]),
        rows=table.replace_schema_metadata(None),
    )


@dataclass(frozen=True, kw_only=True)
class ShardMaker:
    """Makes the shards of one source, in any process."""

    source: Source
    target: Storage
    encoding: Encoding
    work: str
    """The folder of records within the target."""

    def __call__(self, shard: Shard) -> int:
        """Write the tar, then its record; returns how many images it was to hold.

        Images that the source cannot give are left out. No tar is left where that is all.
        """
        with draft(self.target, shard.file, self.work) as path:
            record = self._write(shard, path)
        if not record.num_samples:
            self.target.remove(shard.file)
        self.target.write_bytes(shard.record_name(self.work), record.to_bytes())
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
                about = samples.about[row] if samples.about else None
                try:
                    image = self._encode(key, label, samples.image(row), about is not None)
                except BadImage as error:
                    bad.append(Bad(row, key, label, str(error)))
                    continue
                members = {"cls": str(label).encode(), suffix: image}
                if about is not None:
                    members["json"] = json.dumps(about, sort_keys=True).encode()
                writer.write({"__key__": key, **members})
                # The members come sorted by suffix, each behind a header of one block.
                behind = [len(members[name]) for name in members if name > suffix]
                end = writer.tarstream.offset - sum(TAR_BLOCK + _padded(n) for n in behind)
                line = {"split": shard.split, "shard": shard.file, "key": key, "label": label}
                place = {"offset": end - _padded(len(image)), "length": len(image)}
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

    def _encode(
        self, key: str, label: int, pixels: NDArray[np.uint8], generated: bool
    ) -> bytes:
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
        return self.encoding.encode(pixels, generated=generated)


def _padded(num_bytes: int) -> int:
    """Bytes that a member's content takes in a tar."""
    return -(-num_bytes // TAR_BLOCK) * TAR_BLOCK
