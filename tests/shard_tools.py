"""A small real data set that tests may damage, and tools to damage it."""

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.options import Options
from data_prep.prepare import prepare


def make_digits(out, **changes):
    """The digits in shards of 100, without the feature classifier; returns the manifest.

    In this process: on a busy machine it would look worth it to start Ray.
    """
    options = {"classifier": False, "samples_per_shard": 100, "workers": 0} | changes
    return prepare("digits-lt", Options(out=str(out), **options), log=lambda line: None)


@cache
def _made_once():
    with TemporaryDirectory() as folder:
        make_digits(folder)
        return contents(Path(folder))


def copy_digits(out):
    """What ``make_digits`` makes, which is made once a process: for tests of other things."""
    for name, data in _made_once().items():
        (Path(out) / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(out) / name).write_bytes(data)


def edit_index(folder, change):
    """Rewrite index.parquet group by group; ``change`` gets and gives columns as lists."""
    raw = (folder / "index.parquet").read_bytes()
    old = pq.ParquetFile(io.BytesIO(raw))
    with pq.ParquetWriter(folder / "index.parquet", old.schema_arrow) as new:
        for i in range(old.num_row_groups):
            columns = change(i, old.read_row_group(i).to_pydict())
            new.write_table(pa.table(columns, old.schema_arrow))


def contents(folder):
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()
    }
