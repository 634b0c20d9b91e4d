"""Arrow files mapped into memory: one copy in the page cache for all processes of a node."""

import mmap
from pathlib import Path
from typing import Any

from cbdm_scale.storage.disk import naming_the_disk, whole_file


def map_batch(path: str | Path) -> Any:
    """The one record batch of an Arrow IPC file, without copying it.

    ValueError, OSError, KeyError or TypeError where the file is not whole.
    """
    import pyarrow as pa

    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    source = pa.BufferReader(pa.py_buffer(mapped))  # pa.memory_map would start threads
    one_thread = pa.ipc.IpcReadOptions(use_threads=False)
    return pa.ipc.open_file(source, options=one_thread).get_batch(0)


def write_batch(path: Path, table: Any) -> None:
    """Write a table as one record batch; the file appears whole or not at all."""
    import pyarrow as pa

    batch = table.combine_chunks().to_batches()[0]
    batch = pa.RecordBatch.from_arrays(batch.columns, schema=table.schema)
    with (
        naming_the_disk(str(path.parent), "CBDM_SCALE_CACHE"),
        whole_file(path) as draft,
        pa.OSFile(str(draft), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_batch(batch)
