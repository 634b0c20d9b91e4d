"""A table of images, CSV or Parquet: the columns path and label, others are left alone.

Paths are relative to the table's folder. A label is a class name, or an integer of 0..K-1.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from cbdm_scale.data.class_names import Name, class_key
from cbdm_scale.storage.wording import clip, shorten
from data_prep.readers.classes import KnownClasses, LabelledListing, number_classes
from data_prep.readers.listing import Folders, Listing

COLUMNS = ("path", "label")
SPLIT_COLUMNS = frozenset({"split", "subset", "partition", "set", "fold"})
"""Names of columns that say of which split an image is; all rows are read."""

Row = tuple[int, str, str]
"""Number of the row from 1, path, label as text."""


def is_table(source: Path) -> bool:
    """Whether a source is a file with one of the two suffixes."""
    return source.suffix.lower() in (".csv", ".parquet") and source.is_file()


def list_table(file: Path, option: str, known: KnownClasses | None = None) -> LabelledListing:
    """The rows of a table in their order; a ValueError names file and row."""
    where = f"{option} ({file})"
    read = _csv_rows if file.suffix.lower() == ".csv" else _parquet_rows
    notes: list[str] = []
    rows = read(file, where, notes)
    paths, labels = [], []
    for number, path, label in rows:
        if not path or not label:
            lacking = "label" if path else "path"
            raise ValueError(f"{where}: row {number} has no {lacking}. Complete the row.")
        if "\0" in path:
            raise ValueError(f"{where}: row {number} has a byte 0 in its path {clip(path)!r}")
        paths.append(path)
        labels.append(label)
    if not paths:
        raise ValueError(f"{where} has no rows")
    class_names, numbers = number_classes(_integers_or_names(labels, where), where, known=known)
    return LabelledListing(
        class_names=class_names,
        listing=Listing(
            names=tuple(paths), paths=Folders().find_below(file.parent, paths), labels=numbers
        ),
        notes=(*notes, *_repeats(paths, labels)),
    )


def _csv_rows(file: Path, where: str, notes: list[str]) -> Iterator[Row]:
    with open(file, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            header = [cell.strip() for cell in next(reader, [])]
            path, label = _columns(header, where, notes)
            for number, cells in enumerate((c for c in reader if c), 1):
                if len(cells) != len(header):
                    raise ValueError(
                        f"{where}: row {number} has {len(cells)} cells, the header "
                        f"{len(header)}. Quote cells with commas."
                    )
                yield number, cells[path], cells[label].strip()
        except csv.Error as error:
            raise ValueError(f"{where}: line {reader.line_num} is no CSV: {error}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not UTF-8: {error}") from None


def _parquet_rows(file: Path, where: str, notes: list[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.BufferReader(file.read_bytes())) as table:
            _columns(table.schema_arrow.names, where, notes)
            columns = table.read(columns=list(COLUMNS), use_threads=False)
    except pa.ArrowException as error:
        raise ValueError(f"{where} is not a Parquet file: {clip(error)}") from None
    paths, labels = (columns[name].to_pylist() for name in COLUMNS)
    for number, (path, label) in enumerate(zip(paths, labels, strict=True), 1):
        if isinstance(label, (float, bool, bytes, list, dict)) or not isinstance(
            path, str | None
        ):
            raise ValueError(
                f"{where}: row {number} is ({clip(repr(path))}, {clip(repr(label))}). Paths "
                "are text; labels are integers or text."
            )
        yield number, path or "", "" if label is None else str(label)


def _columns(names: Sequence[str], where: str, notes: list[str]) -> tuple[int, int]:
    """Positions of path and label; notes get what is not read and looks as if it mattered."""
    if splits := [name for name in names if name.lower() in SPLIT_COLUMNS]:
        notes.append(
            f"{where}: all rows are read, whatever stands in the column {splits[0]}. Give "
            "--eval-source a table of its own for rows that are not to be trained on"
        )
    for column in COLUMNS:
        if list(names).count(column) != 1:
            raise ValueError(
                f"{where} must have one column named {column}; its columns are "
                f"{shorten(list(map(repr, names))) or 'none'}. Rename them in the first line."
            )
    return list(names).index(COLUMNS[0]), list(names).index(COLUMNS[1])


def _integers_or_names(labels: list[str], where: str) -> Sequence[Name]:
    """Integers if every label is one; a mixture is an error, as it is mostly a slip."""
    keys = list(map(class_key, labels))
    rows = [i for i, key in enumerate(keys) if isinstance(key, str)]
    if not rows:
        return keys
    if len(rows) < len(labels):
        raise ValueError(
            f"{where}: {len(labels) - len(rows):,} labels are numbers and {len(rows):,} are "
            f"not, the first in row {rows[0] + 1}: {clip(labels[rows[0]])!r}. Give all as "
            "numbers or all as names."
        )
    return labels


def _repeats(paths: list[str], labels: list[str]) -> tuple[str, ...]:
    pairs = set(zip(paths, labels, strict=True))
    twice, under_two = len(paths) - len(pairs), len(pairs) - len(set(paths))
    notes = []
    if twice:
        notes.append(f"{twice:,} rows repeat an earlier row and are images of their own")
    if under_two:
        notes.append(f"{under_two:,} rows give an image another label than an earlier row")
    return tuple(notes)
