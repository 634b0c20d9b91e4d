"""A large file of a data set, in a folder or in a store: it appears whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cbdm_scale.storage.folder import Storage


@contextmanager
def draft(folder: Storage, name: str, work: str) -> Iterator[Path]:
    """A local path: what was written there becomes ``name`` at the end of the context.

    Without an error, that is; else it vanishes. In a local folder it lies in ``work``, a folder
    in it, for a store among the temporary files of the node, one at a time per process.
    """
    last = Path(name).name
    if not folder.is_local:
        with tempfile.TemporaryDirectory(prefix="data_prep-") as scratch:
            path = Path(scratch, last)
            yield path
            folder.put_file(name, path)
        return
    part = f"{work}/.{last}.{os.uname().nodename}.{os.getpid()}.part"
    path = folder.local_path(part)
    try:
        with folder.naming_the_disk():
            yield path
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            folder.move(part, name)
    finally:
        path.unlink(missing_ok=True)
